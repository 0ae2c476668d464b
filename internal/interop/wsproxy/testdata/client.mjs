// A WebSocket over HTTP/2 (RFC 8441) with Node's own client, frame by frame.
// Arguments: the origin to connect to, and where to read its certificate.
import http2 from 'node:http2';
import { readFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import assert from 'node:assert/strict';

const [origin, cert] = process.argv.slice(2);
const session = http2.connect(origin, cert ? { ca: readFileSync(cert) } : {});
const settings = await new Promise((resolve, reject) => {
  session.once('remoteSettings', resolve);
  session.once('error', reject);
});
assert.equal(settings.enableConnectProtocol, true, 'SETTINGS_ENABLE_CONNECT_PROTOCOL');

function frame(op, payload) {
  const n = payload.length;
  let head;
  if (n < 126) {
    head = Buffer.from([0x80 | op, 0x80 | n]);
  } else if (n < 65536) {
    head = Buffer.from([0x80 | op, 0x80 | 126, n >> 8, n & 255]);
  } else {
    head = Buffer.alloc(10);
    head[0] = 0x80 | op;
    head[1] = 0x80 | 127;
    head.writeBigUInt64BE(BigInt(n), 2);
  }
  const mask = randomBytes(4);
  const masked = Buffer.from(payload);
  for (let i = 0; i < n; i++) masked[i] ^= mask[i & 3];
  return Buffer.concat([head, mask, masked]);
}

// frames yields the unmasked frames of a stream, and returns at its end.
async function* frames(stream) {
  let have = Buffer.alloc(0);
  for await (const chunk of stream) {
    have = Buffer.concat([have, chunk]);
    for (;;) {
      if (have.length < 2) break;
      assert.equal(have[1] & 0x80, 0, 'the server masks');
      let n = have[1] & 127, start = 2;
      if (n === 126) {
        if (have.length < 4) break;
        n = have.readUInt16BE(2);
        start = 4;
      } else if (n === 127) {
        if (have.length < 10) break;
        n = Number(have.readBigUInt64BE(2));
        start = 10;
      }
      if (have.length < start + n) break;
      yield { op: have[0] & 15, payload: have.subarray(start, start + n) };
      have = have.subarray(start + n);
    }
  }
  assert.equal(have.length, 0, 'ended within a frame');
}

async function tunnel() {
  const stream = session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/echo', ':scheme': new URL(origin).protocol.slice(0, -1),
    'sec-websocket-version': '13', 'sec-websocket-protocol': 'chat', origin,
  }, { endStream: false });
  const headers = await new Promise((resolve, reject) => {
    stream.once('response', resolve);
    stream.once('error', reject);
  });
  assert.equal(headers[':status'], 200);
  assert.equal(headers['sec-websocket-protocol'], 'chat');
  assert.equal(headers['sec-websocket-accept'], undefined);
  const incoming = frames(stream);
  const messages = [Buffer.from('hello'), Buffer.from('x'.repeat(126)), randomBytes(200000)];
  for (const [i, m] of messages.entries()) {
    stream.write(frame(i === 2 ? 2 : 1, m));
    const { value } = await incoming.next();
    assert.equal(value.op, i === 2 ? 2 : 1);
    assert.ok(value.payload.equals(m), `message ${i}`);
  }
  stream.write(frame(9, Buffer.from('are you there')));
  assert.deepEqual((await incoming.next()).value, { op: 10, payload: Buffer.from('are you there') });
  stream.write(frame(8, Buffer.from([1000 >> 8, 1000 & 255])));
  const { value } = await incoming.next();
  assert.equal(value.op, 8);
  assert.equal(value.payload.readUInt16BE(0), 1000);
  assert.equal((await incoming.next()).done, true, 'the server ends the stream');
  stream.end();
}

// Several on one connection, at the same time.
await Promise.all([tunnel(), tunnel(), tunnel()]);
session.close();
console.log('ok');
