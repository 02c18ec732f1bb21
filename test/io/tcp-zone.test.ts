import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const TRANSPORT = fileURLToPath(new URL('../../dist/io/tcp-transport.js', import.meta.url));
/** Prints from where the server sees the connection. */
const PROGRAM = `
  import { createServer } from 'node:net';
  const { connectTcp } = await import('${TRANSPORT}');
  const server = createServer((socket) => {
    console.log(socket.remoteAddress);
    process.exit();
  });
  server.listen(0, 'fe80::abcd%lo', () => {
    connectTcp({ host: 'fe80::abcd%lo', port: server.address().port }, new AbortController().signal);
  });`;
const NETWORK = 'ip link set lo up && ip addr add fe80::abcd/64 dev lo nodad && exec "$@"';

it.skipIf(process.getuid?.() !== 0 && process.env['CI'] === undefined)(
  'a link-local portal is reached over the interface that its zone names',
  async () => {
    const node = [process.execPath, '--input-type=module', '-e', PROGRAM];
    const args = ['--net', 'sh', '-c', NETWORK, 'sh', ...node];
    const { stdout } = await promisify(execFile)('unshare', args, { timeout: 30_000 });
    expect(stdout).toMatch(/^fe80::abcd/);
  },
);
