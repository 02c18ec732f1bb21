#!/usr/bin/env node
// Draws docs/top-outage.svg: `iscsi-nbd top` of a real daemon with two embedded targets under load, one
// of which goes away. It needs `dist` (scripts/setup), fio, and `script` of util-linux; no root. 40 s.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { svgOf } from './ansi-svg.mjs';

const ROOT = new URL('../../', import.meta.url);
const PICTURE = new URL('docs/top-outage.svg', ROOT);
const CLI = fileURLToPath(new URL('dist/cli/main.js', ROOT));
const COLUMNS = 110;
const ROWS = 12;
const LOAD_SECONDS = 22;
const OUTAGE_SECONDS = 11;
const REMOVAL_SECONDS = 30;
const MIB = 2 ** 20;
/** Below the range that Linux gives to outgoing connections. */
const PORTS = [26_301, 26_302];

/** @param {string} name of a module of the compiled program */
const compiled = (name) => import(String(new URL(`dist/${name}.js`, ROOT)));
const { TargetDisk } = await compiled('target/disk');
const { startTargetServer } = await compiled('target/server');
const { TargetNode } = await compiled('target/target');

const folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-picture-'));
const env = {
  ...process.env,
  ...{ ISCSI_NBD_CONTROL: join(folder, 'c.sock'), TERM: 'xterm-256color', NO_COLOR: '' },
};
/** @type {import('node:child_process').ChildProcess[]} */
const children = [];

/**
 * A target with disks of 64 MiB in memory.
 * @param {string} name
 * @param {number | undefined} port
 * @param {readonly number[]} luns
 */
async function target(name, port, luns) {
  const disks = luns.map((lun) => [
    lun,
    TargetDisk.ram({ sizeBytes: 64 * MIB, writeCacheEnabled: true }),
  ]);
  const full = `iqn.2001-04.com.example:${name}`;
  const node = new TargetNode({
    targets: [{ name: full, luns: Object.fromEntries(disks) }],
    negotiation: { defaultTime2Wait: 0 },
  });
  const server = await startTargetServer(node, { port });
  return { name: full, server };
}

/** @param {readonly string[]} args */
async function command(...args) {
  const child = spawn(process.execPath, [CLI, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (text) => {
    out += text;
  });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`iscsi-nbd ${args[0]} ended with ${code}`);
  return out;
}

/**
 * @param {string} uri
 * @param {readonly string[]} flags
 */
function load(uri, ...flags) {
  const common = ['--name=load', '--ioengine=nbd', `--uri=${uri}`, '--size=64m', '--time_based'];
  const fio = spawn('fio', [...common, '--runtime=60', ...flags], { stdio: 'ignore', cwd: folder });
  children.push(fio);
}

/** Runs `top` in a terminal, waits for the outage, and returns the last screen. */
async function lastScreen() {
  const line = `stty cols ${COLUMNS} rows ${ROWS}; exec '${process.execPath}' '${CLI}' top`;
  const terminal = spawn('script', ['-qec', line, '/dev/null'], { env });
  children.push(terminal);
  let out = '';
  terminal.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  await sleep(1000 * LOAD_SECONDS);
  await gone.server.stopListening();
  gone.server.dropConnections();
  await sleep(1000 * OUTAGE_SECONDS);
  const ended = once(terminal, 'exit');
  terminal.stdin.write('q');
  await ended;
  const last = out.slice(out.lastIndexOf('\u001b[H') + 3);
  return last.slice(0, last.indexOf('\u001b[J')).replaceAll('\u001b[K', '').split('\r\n');
}

const gone = await target('database', PORTS[0], [1, 2]);
const kept = await target('archive', PORTS[1], [1]);
try {
  const flags = ['--state-directory', join(folder, 'state'), '--socket-directory'];
  const daemon = spawn(process.execPath, [CLI, 'daemon', ...flags, join(folder, 'nbd')], {
    ...{ env, stdio: ['ignore', 'pipe', 'ignore'] },
  });
  children.push(daemon);
  if (daemon.stdout !== null) await once(daemon.stdout, 'data');
  for (const { name, server } of [gone, kept]) {
    await command('login', server.portal, name, '--removal-latency', String(REMOVAL_SECONDS));
  }
  const { devices } = JSON.parse(await command('devices', '--json'));
  const [first, , third] = devices;
  load(first.uri, '--rw=randwrite', '--bs=16k', '--iodepth=8', '--rate=24m', '--fsync=64');
  load(third.uri, '--rw=read', '--bs=64k', '--iodepth=2', '--rate_process=poisson', '--rate=9m');
  await sleep(1000);
  const lines = await lastScreen();
  const label = 'iscsi-nbd top during an outage of one of two targets';
  writeFileSync(PICTURE, svgOf(lines, { columns: COLUMNS, label }));
} finally {
  for (const child of children) child.kill();
  for (const { server } of [gone, kept]) await server.close();
  await Promise.all(
    children.map((child) => child.exitCode ?? child.signalCode ?? once(child, 'exit')),
  );
  rmSync(folder, { recursive: true });
}
