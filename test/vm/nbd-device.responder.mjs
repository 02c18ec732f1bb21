// A RAM- or file-backed answer to the kernel's NBD requests, with a codec of its own (NBD protocol,
// "Transmission phase": request 28 bytes, simple reply 16 bytes). Run as a program it connects a
// device by the addon's plain calls and serves it until it is killed:
//   node nbd-device.responder.mjs ADDON FILE SIZE IDENTIFIER
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { fileURLToPath } from 'node:url';

const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const REQUEST_BYTES = 28;

/** Serves `store` ({read, write}) on the descriptor `fd`. */
export function respond(fd, store) {
  const socket = new net.Socket({ fd, readable: true, writable: true });
  const seen = { reads: 0, writes: 0, flushes: 0, trims: 0, ended: false };
  let held = Buffer.alloc(0);
  let muted = false;
  const answerOne = () => {
    if (held.length < REQUEST_BYTES) return false;
    if (held.readUInt32BE(0) !== REQUEST_MAGIC) throw new Error('bad request magic');
    const type = held.readUInt16BE(6);
    const offset = Number(held.readBigUInt64BE(16));
    const length = held.readUInt32BE(24);
    const payload = type === 1 ? length : 0;
    if (held.length < REQUEST_BYTES + payload) return false;
    const reply = Buffer.alloc(16);
    reply.writeUInt32BE(REPLY_MAGIC, 0);
    held.copy(reply, 8, 8, 16);
    const data = held.subarray(REQUEST_BYTES, REQUEST_BYTES + payload);
    held = held.subarray(REQUEST_BYTES + payload);
    if (type === 2) {
      socket.end();
      return false;
    }
    if (type === 1) store.write(offset, data);
    seen[['reads', 'writes', '', 'flushes', 'trims'][type] ?? 'other'] += 1;
    socket.write(reply);
    if (type === 0) socket.write(store.read(offset, length));
    return true;
  };
  socket.on('data', (bytes) => {
    if (muted) return;
    held = held.length === 0 ? bytes : Buffer.concat([held, bytes]);
    while (answerOne());
  });
  socket.on('close', () => {
    seen.ended = true;
  });
  socket.on('error', () => {});
  return {
    seen,
    shutDown: () => socket.destroy(),
    complete: async () => {
      socket.destroy();
    },
    /** Stops reading for good: the socket fills up and no request is answered. */
    stopReading: () => {
      muted = true;
      socket.pause();
    },
  };
}

export function ramStore(sizeBytes) {
  const memory = Buffer.alloc(sizeBytes);
  return {
    memory,
    read: (offset, length) => memory.subarray(offset, offset + length),
    write: (offset, data) => data.copy(memory, offset),
  };
}

export function fileStore(path) {
  const fd = openSync(path, 'r+');
  return {
    read: (offset, length) => {
      const bytes = Buffer.alloc(length);
      readSync(fd, bytes, 0, length, offset);
      return bytes;
    },
    write: (offset, data) => writeSync(fd, data, 0, data.length, offset),
    close: () => closeSync(fd),
  };
}

async function main([addonPath, file, size, identifier]) {
  const addon = createRequire(import.meta.url)(addonPath);
  const [fd, kernelFd] = addon.socketPair();
  const index = await addon.nbdConnect({
    sizeBytes: Number(size),
    blockSizeBytes: 512,
    serverFlags: 1 | 4,
    clientFlags: 0,
    deadConnTimeoutSeconds: 600,
    identifier,
    socketFd: kernelFd,
  });
  addon.closeFd(kernelFd);
  respond(fd, fileStore(file));
  await addon.writeAttribute(`/sys/block/nbd${index}/queue/io_timeout`, '1500');
  console.log(`index ${index}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));
