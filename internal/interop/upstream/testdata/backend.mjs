// A back end as Node makes one: node backend.mjs HOST:PORT http|h2c
import http from "node:http";
import http2 from "node:http2";
import { createHash } from "node:crypto";

const [addr, mode] = process.argv.slice(2);
const [host, port] = addr.split(":");
let asked = 0;

function handle(req, res) {
  const path = req.url.split("?")[0];
  if (path === "/echo") {
    const chunks = [];
    req.on("data", (c) => chunks.push(c));
    req.on("end", () => {
      res.setHeader("content-type", "application/octet-stream");
      res.setHeader("set-cookie", ["a=1", "b=2"]);
      res.end(Buffer.concat(chunks));
    });
  } else if (path === "/hints") {
    res.writeEarlyHints({ link: "</style.css>; rel=preload; as=style" });
    res.end("hinted");
  } else if (path === "/trailer") {
    const sum = createHash("sha256");
    if (mode === "http") {
      res.writeHead(200, { trailer: "x-sum" });
      res.write("body");
      sum.update("body");
      res.addTrailers({ "x-sum": sum.digest("hex") });
      res.end();
    } else {
      sum.update("body");
      res.setTrailer("x-sum", sum.digest("hex"));
      res.end("body");
    }
  } else if (path === "/events") {
    res.writeHead(200, { "content-type": "text/event-stream" });
    res.write("data: one\n\n");
    // The second follows when the first has been seen.
    waiting = () => res.end("data: two\n\n");
  } else if (path === "/seen") {
    waiting?.();
    res.end();
  } else if (path === "/cut") {
    res.writeHead(200);
    res.write("x".repeat(10000), () => (mode === "http" ? req.socket.destroy() : res.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)));
  } else if (path === "/refused") {
    // Every other stream is refused, which says that nothing was done.
    if (++asked % 2 === 1) res.stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    else res.end("accepted");
  } else if (path === "/goaway") {
    if (++asked % 5 === 0) res.stream.session.goaway();
    res.end("accepted");
  } else {
    res.statusCode = 404;
    res.end();
  }
}
let waiting;

const server = mode === "http" ? http.createServer(handle) : http2.createServer(handle);
if (mode === "http") {
  // Short, so that connections are closed just as they are about to be used.
  server.keepAliveTimeout = 20;
  server.keepAliveTimeoutBuffer = 0;
  server.on("upgrade", (req, socket, head) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    if (head.length) socket.write(head);
    socket.pipe(socket);
    socket.on("error", () => {});
  });
}
server.listen(Number(port), host);
