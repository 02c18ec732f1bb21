import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CommandResult, judge, Workplace } from '../helpers/command-process.js';
import { freePort, startTgt, type Tgt } from '../helpers/tgt.js';

const MIB = 1 << 20;
const NAME = 'iqn.2024-01.com.example:disk1';
/** The machine of a test may be busy; nothing here is about speed. */
const SLOW = 120_000;
let tgt: Tgt;
let closedPort: number;

beforeAll(async () => {
  tgt = await startTgt({ iqn: NAME, luns: [{ sizeBytes: MIB }] });
  closedPort = await freePort();
});

afterAll(() => tgt.stop());

/** One paragraph for a person, and nothing left behind. */
function expectParagraph({ out, err }: CommandResult, pattern: RegExp): void {
  expect(err).toMatch(pattern);
  expect(err).toMatch(/^iscsi-nbd: [^\n]+\.\n$/);
  expect(err).not.toMatch(/ {4}at |undefined|NaN|\[object/);
  expect(out).toBe('');
}

/** In a network namespace of its own: one end of a cable without a listener at its other end. */
const HOLE = [
  'ip link add v0 type veth peer name v1',
  'ip addr add 203.0.113.1/24 dev v0',
  'ip link set dev v0 up',
  'ip link set dev v1 up',
  'ip neigh add 203.0.113.2 lladdr 02:00:00:00:00:01 dev v0',
].join(' && ');

function canMakeHole(): boolean {
  return spawnSync('unshare', ['-n', 'sh', '-c', HOLE]).status === 0;
}

/** A TCP server that is no iSCSI target. */
async function impostor(greet: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    greet(socket);
  });
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe('the error for wrong input', {
  timeout: SLOW,
}, () => {
  const at = (port: number, rest = `/${NAME}/1`) => `iscsi://127.0.0.1:${port}${rest}`;

  const cases: readonly (readonly [
    what: string,
    args: () => readonly string[],
    code: number,
    pattern: RegExp,
  ])[] = [
    [
      'a port without a listener',
      () => ['discover', `127.0.0.1:${closedPort}`],
      4,
      /No connection to 127\.0\.0\.1:\d+ \(ECONNREFUSED\): .*nothing listens.* Check the address/,
    ],
    [
      'a host name that does not exist',
      () => ['capacity', `iscsi://no-such-host.invalid/${NAME}/1`],
      4,
      /no-such-host\.invalid cannot be looked up .* Check how the name is written/,
    ],
    [
      'a target name the portal does not have',
      () => ['luns', at(tgt.port, '/iqn.2024-01.com.example:disk2')],
      19,
      /0203 Not found: .*disk2.*Compare the name with what discovery/,
    ],
    [
      'serve with a target name the portal does not have',
      () => ['serve', at(tgt.port, '/iqn.2024-01.com.example:disk2'), '--socket', 'SOCKET'],
      19,
      /0203 Not found/,
    ],
    [
      'a LUN that is not there',
      () => ['serve', at(tgt.port, `/${NAME}/7`), '--socket', 'SOCKET'],
      21,
      /no LUN 7 for this initiator; it reports: 0, 1/,
    ],
    [
      'capacity of such a LUN',
      () => ['capacity', at(tgt.port, `/${NAME}/7`)],
      21,
      /LUN 7.*luns` lists/,
    ],
    [
      'inquiry of such a LUN',
      () => ['inquiry', at(tgt.port, `/${NAME}/7`)],
      21,
      /LUN 7.*luns` lists/,
    ],
    [
      'a LUN that is no disk',
      () => ['serve', at(tgt.port, `/${NAME}/0`), '--socket', 'SOCKET'],
      21,
      /LUN 0 is not a disk/,
    ],
    ['a URL without its scheme', () => ['luns', '127.0.0.1'], 7, /does not begin with iscsi:\/\//],
    ['a URL without a target', () => ['luns', 'iscsi://127.0.0.1'], 7, /names no target.*discover/],
    ['a URL with options', () => ['luns', `${at(1)}?a=b`], 7, /'\?' has no meaning.*flags/],
    ['a device for a URL', () => ['luns', '/dev/sda'], 7, /does not begin with iscsi/],
    ['a portal with a target', () => ['discover', at(1)], 7, /a portal has no target name/],
    ['a word too many', () => ['capacity', at(1), '0'], 7, /'0' is one word too many/],
    [
      'a flag that is not there',
      () => ['capacity', at(1), '--login-timout', '3'],
      7,
      /Did you mean/,
    ],
    [
      'an option out of range',
      () => ['capacity', at(1), '--queue-depth-max', '0'],
      7,
      /from 1 to 4096/,
    ],
    [
      'a time to look for answers that is out of range',
      () => ['serve', at(1), '--socket', 'SOCKET', '--busy-poll', '5000'],
      7,
      /--busy-poll must be a whole number from 0 to 1000/,
    ],
    [
      'flags that clash',
      () => ['serve', at(1), '--socket', 'SOCKET', '--luns', '0'],
      7,
      /not in --luns; drop one/,
    ],
    [
      'what this version cannot do',
      () => ['capacity', at(1), '--max-connections', '2'],
      27,
      /one connection a session/,
    ],
    ['serve without a socket', () => ['serve', at(1)], 7, /needs --socket PATH/],
    ['an empty socket path', () => ['serve', at(1), '--socket', ''], 7, /--socket is empty/],
    [
      'a socket in a folder that is not there',
      () => ['serve', at(tgt.port), '--socket', 'PLACE/no/disk.sock'],
      7,
      /--socket .*\/no\/disk\.sock: the directory .*\/no does not exist; make it first/,
    ],
    [
      'a socket path too long for the system',
      () => ['serve', at(tgt.port), '--socket', `PLACE/${'x'.repeat(120)}`],
      7,
      /at most 107/,
    ],
    [
      'a secret file that is not there',
      () => ['capacity', at(1), '--chap-user', 'me', '--chap-secret-file', 'PLACE/no'],
      7,
      /secret/,
    ],
    ['an empty --run', () => ['serve', at(tgt.port), '--run', ''], 7, /--run is empty/],
  ];

  it.each(cases)(
    'the error is one paragraph with its status for %s',
    async (_what, args, code, pattern) => {
      await using place = await Workplace.make();
      const words = args().map((word) =>
        word.replace(/^SOCKET$/, place.file('disk.sock')).replace(/^PLACE/, place.path),
      );
      const result = await place.run(words);
      expectParagraph(result, pattern);
      expect(result.code).toBe(code);
      expect(await place.content()).toEqual([]);
    },
  );

  it('the wrong calls leave no session at the target', async () => {
    const connections = ['--lld', 'iscsi', '--mode', 'conn', '--op', 'show', '--tid', '1'];
    expect((await tgt.adm(...connections)).trim()).toBe('');
  });

  it('a socket path that is a file is rejected, and the file is unchanged', async () => {
    await using place = await Workplace.make();
    const file = place.file('precious');
    await writeFile(file, 'data');
    const result = await place.run(['serve', at(tgt.port), '--socket', file]);
    expectParagraph(result, /precious: there is a file of that name that is not a socket/);
    expect(result.code).toBe(7);
    expect(await judge('cat', file)).toBe('data');
    expect(await place.content()).toEqual(['precious']);
  });

  it('a socket path on which another process serves is busy: 28, and that process goes on', async () => {
    await using place = await Workplace.make();
    const socket = place.file('disk.sock');
    await using first = place.start(['serve', at(tgt.port), '--socket', socket]);
    await first.lines(1);
    const result = await place.run(['serve', at(tgt.port), '--socket', socket]);
    expectParagraph(result, /disk\.sock: another server is listening there; stop it or choose/);
    expect(result.code).toBe(28);
    expect(await judge('nbdinfo', '--size', `nbd+unix:///?socket=${socket}`)).toBe(`${MIB}\n`);
    first.kill('SIGTERM');
    expect((await first.result).code).toBe(0);
    expect(await place.content()).toEqual([]);
  });

  it.each(['discover', 'capacity', 'serve'])(
    'the command %s at a portal that never responds ends at --login-timeout with 8',
    async (command) => {
      await using silent = await impostor(() => {});
      await using place = await Workplace.make();
      const where = command === 'discover' ? `127.0.0.1:${silent.port}` : at(silent.port);
      const socket = command === 'serve' ? ['--socket', place.file('disk.sock')] : [];
      const result = await place.run([command, where, ...socket, '--login-timeout', '1']);
      expectParagraph(result, /in time.*127\.0\.0\.1:\d+.*--login-timeout sets how long/);
      expect(result.code).toBe(8);
      expect(await place.content()).toEqual([]);
    },
  );

  it.runIf(canMakeHole())('an address that drops every packet is a timeout too: 8', async () => {
    const run = `"${process.execPath}" dist/cli/main.js capacity iscsi://203.0.113.2/${NAME}/1`;
    const flags = '--login-timeout 1 --initiator-name iqn.2001-04.com.example:me';
    const out = await judge('unshare', '-n', 'sh', '-c', `${HOLE}; ${run} ${flags} 2>&1; echo $?`);
    expect(out).toMatch(/^iscsi-nbd: No [^\n]* in time .*203\.0\.113\.2.*\n8\n$/);
  });

  it('a portal that closes the connection at once is a lost connection: 4', async () => {
    await using rude = await impostor((socket) => socket.resetAndDestroy());
    await using place = await Workplace.make();
    const result = await place.run(['discover', `127.0.0.1:${rude.port}`]);
    expectParagraph(result, /the other side ended the connection/);
    expect(result.code).toBe(4);
  });

  it('a portal that speaks another protocol is reported as such: 5', async () => {
    await using babble = await impostor((socket) => socket.write('HTTP/1.1 400 \r\n'.repeat(200)));
    await using place = await Workplace.make();
    const result = await place.run(['discover', `127.0.0.1:${babble.port}`]);
    expectParagraph(
      result,
      /RFC 7143 §.*Check that the address and port are those of an iSCSI target/,
    );
    expect(result.code).toBe(5);
  });

  it('the error with --json is one object on standard error', async () => {
    await using place = await Workplace.make();
    const result = await place.run([
      'serve',
      at(closedPort),
      '--socket',
      place.file('s'),
      '--json',
    ]);
    expect(JSON.parse(result.err)).toMatchObject({
      event: 'error',
      code: 'ERR_LINK',
      exitCode: 4,
      portal: `127.0.0.1:${closedPort}`,
      target: NAME,
      lun: 1,
    });
    expect(result.out).toBe('');
    expect(result.code).toBe(4);
  });

  it('a full disk at standard output is an error, without a stack trace', async () => {
    const command = `"${process.execPath}" dist/cli/main.js explain 24 2>&1 >/dev/full; echo $?`;
    expect(await judge('sh', '-c', command)).toMatch(/^iscsi-nbd: [^\n]*ENOSPC[^\n]*\n1\n$/);
  });
});

const isRoot = process.getuid?.() === 0;
/** Another user can only run a program in a place everybody can read. */
function isReadableByAll(): boolean {
  try {
    accessSync('dist/cli/main.js', constants.R_OK);
    return existsSync('/usr/bin/setpriv') && !process.cwd().startsWith('/root');
  } catch {
    return false;
  }
}

describe.runIf(isRoot && isReadableByAll())(
  'commands of an unprivileged user',
  { timeout: SLOW },
  () => {
    const asNobody = async (place: Workplace, ...args: string[]): Promise<CommandResult> => {
      const words = ['--reuid', '65534', '--regid', '65534', '--clear-groups', 'env', '-i'];
      const variables = [`PATH=${process.env['PATH']}`, `HOME=${place.file('home')}`];
      const script = `"$@" 2>"$0"; echo "status $?"`;
      const err = place.file('err');
      await writeFile(err, '');
      const node = [process.execPath, 'dist/cli/main.js', ...args];
      const out = await judge('sh', '-c', script, err, 'setpriv', ...words, ...variables, ...node);
      const code = Number(/status (\d+)\n$/.exec(out)?.[1]);
      return { code, out: out.replace(/status \d+\n$/, ''), err: await judge('cat', err) };
    };

    it('attach reports that it needs rights (13), or that the kernel has no driver (27)', async () => {
      await using place = await Workplace.make();
      const name = ['--initiator-name', 'iqn.2001-04.com.example:nobody'];
      const result = await asNobody(place, 'attach', tgt.url(1), ...name);
      expectParagraph(result, /No \/dev\/nbdX can be made here\. .*`iscsi-nbd serve` exports/);
      expect(result.code).toBe(existsSync('/proc/modules') ? 13 : 27);
    });

    it('a socket in a folder without write permission is rejected with 13', async () => {
      await using place = await Workplace.make();
      await mkdir(place.file('closed'), { mode: 0o700 });
      const name = ['--initiator-name', 'iqn.2001-04.com.example:nobody'];
      const socket = place.file('closed/disk.sock');
      const result = await asNobody(place, 'serve', tgt.url(1), '--socket', socket, ...name);
      expectParagraph(result, /no permission to write in .*closed; choose another place/);
      expect(result.code).toBe(13);
    });

    it('the error 13 says how to set an initiator name if none can be stored', async () => {
      await using place = await Workplace.make();
      const result = await asNobody(place, 'capacity', tgt.url(1));
      if (existsSync('/etc/iscsi/initiatorname.iscsi') && result.code === 0) return;
      expectParagraph(
        result,
        /initiator name cannot be (?:kept in|read from) .* --initiator-name iqn\./,
      );
      expect(result.code).toBe(13);
    });
  },
);
