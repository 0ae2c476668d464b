// Node's own WebSocket, by undici, over HTTP/1.1. Argument: the URL.
import assert from 'node:assert/strict';

function next(ws, type) {
  return new Promise((resolve, reject) => {
    ws.addEventListener(type, resolve, { once: true });
    ws.addEventListener('error', (e) => reject(e.error ?? new Error('WebSocket error')), { once: true });
  });
}

const ws = new WebSocket(process.argv[2] + '/echo', ['other', 'chat']);
ws.binaryType = 'arraybuffer';
await next(ws, 'open');
assert.equal(ws.protocol, 'chat');
for (const message of ['hello', 'κόσμε', 'x'.repeat(200000), new Uint8Array(70000).fill(7)]) {
  const answer = next(ws, 'message');
  ws.send(message);
  const { data } = await answer;
  if (typeof message === 'string') assert.equal(data, message);
  else assert.deepEqual(new Uint8Array(data), message);
}
const closed = next(ws, 'close');
ws.close(4321, 'done');
const e = await closed;
assert.equal(e.code, 4321);
console.log('ok');
process.exit(0);
