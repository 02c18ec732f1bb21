// node lone-writer.program.mjs SOCKET COUNT: writes 4 KiB that often, one request at a time, each with
// its header in one send. fio sends the two by themselves, and how often they then arrive together
// is the scheduler's doing.
import { once } from 'node:events';
import { connect } from 'node:net';

const [, , path, count] = process.argv;
const socket = connect(path);
const greetingBytes = 18;
const exportBytes = 10;
const replyBytes = 16;
const payloadBytes = 4096;

async function take(length) {
  for (;;) {
    const bytes = socket.read(length);
    if (bytes !== null) return bytes;
    await once(socket, 'readable');
  }
}

await take(greetingBytes);
const option = Buffer.alloc(20);
option.writeUInt32BE(3, 0); // fixed newstyle, no zeroes
option.write('IHAVEOPT', 4);
option.writeUInt32BE(1, 12); // NBD_OPT_EXPORT_NAME with the empty name
socket.write(option);
await take(exportBytes);

const request = Buffer.alloc(28 + payloadBytes, 0x5a);
request.writeUInt32BE(0x25609513, 0);
request.writeUInt32BE(1, 4); // no flags, NBD_CMD_WRITE
request.writeUInt32BE(payloadBytes, 24);
for (let done = 0; done < Number(count); done += 1) {
  request.writeBigUInt64BE(BigInt(done), 8);
  request.writeBigUInt64BE(BigInt((done % 1000) * payloadBytes), 16);
  socket.write(request);
  const reply = await take(replyBytes);
  if (reply.readUInt32BE(0) !== 0x67446698 || reply.readUInt32BE(4) !== 0) process.exit(1);
}
socket.destroy();
