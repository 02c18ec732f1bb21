// node stalled-sender.program.mjs PORT: connects as a link to a target does, sends until the system
// takes no more, says how many bytes that were, and stays.
import { createRequire } from 'node:module';

const addon = createRequire(import.meta.url)('../../build/Release/iscsi_nbd.node');
const [ROUND_BYTES, ROUNDS] = [1 << 20, 64];
addon.setSlab(0, Buffer.alloc(ROUND_BYTES, 0x5a));
const table = Int32Array.from({ length: ROUNDS * 3 }, (_, at) => (at % 3 === 2 ? ROUND_BYTES : 0));
const fd = addon.connectTcp('127.0.0.1', Number(process.argv[2]));
const socket = new addon.NativeSocket(fd, false, new Int32Array(3), () => {
  console.log(socket.send(0, ROUNDS));
});
socket.useTable(table);
socket.watchWritable(true);
setInterval(() => undefined, 1000);
