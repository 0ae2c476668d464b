// A WebSocket echo server on Node's http alone. Argument: host:port.
import http from 'node:http';
import { createHash } from 'node:crypto';

const [host, port] = process.argv[2].split(':');
const server = http.createServer((req, res) => res.writeHead(426).end());
server.on('upgrade', (req, socket, head) => {
  // Node keeps names as they were sent: this is what a strict server looks at.
  const names = req.rawHeaders.filter((_, i) => i % 2 === 0);
  if (!names.includes('Sec-WebSocket-Key') || !names.includes('Sec-WebSocket-Version')) {
    socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  const accept = createHash('sha1').update(req.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  const offered = (req.headers['sec-websocket-protocol'] ?? '').split(',').map((s) => s.trim());
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
    `Sec-WebSocket-Accept: ${accept}\r\n${offered.includes('chat') ? 'Sec-WebSocket-Protocol: chat\r\n' : ''}\r\n`);
  let have = head;
  const take = (chunk) => {
    have = Buffer.concat([have, chunk]);
    for (;;) {
      if (have.length < 6) return;
      let n = have[1] & 127, start = 2;
      if (n === 126) {
        if (have.length < 8) return;
        n = have.readUInt16BE(2);
        start = 4;
      } else if (n === 127) {
        if (have.length < 14) return;
        n = Number(have.readBigUInt64BE(2));
        start = 10;
      }
      if (have.length < start + 4 + n) return;
      const mask = have.subarray(start, start + 4);
      const payload = Buffer.from(have.subarray(start + 4, start + 4 + n));
      for (let i = 0; i < n; i++) payload[i] ^= mask[i & 3];
      const op = have[0] & 15, first = have[0];
      have = have.subarray(start + 4 + n);
      reply(op === 9 ? 0x8a : first, payload, op);
      if (op === 8) {
        socket.end();
        return;
      }
    }
  };
  const reply = (first, payload, op) => {
    if (op === 1 && req.url.endsWith('/close') && payload.toString() === 'close') {
      first = 0x88;
      payload = Buffer.concat([Buffer.from([4001 >> 8, 4001 & 255]), Buffer.from('server says so')]);
    }
    const n = payload.length;
    const head = n < 126 ? Buffer.from([first, n]) : n < 65536 ? Buffer.from([first, 126, n >> 8, n & 255]) : Buffer.alloc(10);
    if (n >= 65536) {
      head[0] = first;
      head[1] = 127;
      head.writeBigUInt64BE(BigInt(n), 2);
    }
    socket.write(Buffer.concat([head, payload]));
  };
  socket.on('data', take);
  socket.on('error', () => {});
  take(Buffer.alloc(0));
});
server.listen(Number(port), host);
