// node slow-peer.program.mjs SOCKET: sends a message, and another a fifth of a millisecond after each
// answer. It stays awake meanwhile, as a program on a processor of its own does.
import { connect } from 'node:net';

const ANSWER_NS = 200_000n;
const socket = connect(process.argv[2]);
socket.on('data', () => {
  const end = process.hrtime.bigint() + ANSWER_NS;
  while (process.hrtime.bigint() < end);
  socket.write('next');
});
socket.on('error', () => process.exit());
socket.write('first');
