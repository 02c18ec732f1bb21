// node scripts/addon/build.mjs [--if-needed | --out FILE | --sanitize FILE]: compiles native/ into
// build/Release/iscsi_nbd.node, or into FILE, with a C++ compiler (CXX, else c++) and Node's own
// headers; nothing is downloaded. With --if-needed it does so only if there is none that this Node
// can load: how the npm package installs itself where no addon that it brings fits. --sanitize is for
// scripts/test-parts/sanitize: with AddressSanitizer and UndefinedBehaviorSanitizer.
import { spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const BUILT = join(ROOT, 'build/Release/iscsi_nbd.node');
/** The addon that the npm package brings for this processor. */
const BROUGHT = join(ROOT, `prebuilds/linux-${process.arch}/iscsi_nbd.node`);
const NODE_HEADERS = resolve(process.execPath, '../../include/node');
/** Where the npm package has the headers that a clone has in node_modules. */
const VENDOR = 'native/vendor';

/** Headers, each with the folders where it may be. The folders of ROOT are relative to it. */
const HEADERS = [
  { name: 'napi.h', folders: [VENDOR, 'node_modules/node-addon-api'], from: 'npm ci' },
  {
    name: 'node_api.h',
    folders: [VENDOR, 'node_modules/node-api-headers/include'],
    from: 'npm ci',
  },
  {
    name: 'uv.h',
    folders: [NODE_HEADERS, '/usr/include/node', '/usr/include'],
    from: 'apt-get install libuv1-dev',
  },
];
const COMPILE = [
  ...['-std=c++17', '-O2', '-DNDEBUG', '-fPIC', '-fvisibility=hidden', '-Wall', '-Wextra'],
  // A new compiler's new warning must not prevent an installation.
  ...(existsSync(join(ROOT, VENDOR)) ? [] : ['-Werror']),
  ...['-DNAPI_VERSION=8', '-DNODE_ADDON_API_DISABLE_DEPRECATED', '-DNODE_ADDON_API_CPP_EXCEPTIONS'],
  // The end of a worker while a job's callback runs throws an error that no code can catch.
  '-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
];

const LINK = [
  '-shared',
  // Without symbols that only a debugger reads, the same sources give the same bytes anywhere.
  '-s',
  // Another C library that lacks a function refuses to load the addon, and does not crash later.
  '-Wl,-z,now',
];

/** Any of their reports ends the process. */
const SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
const SANITIZE = [...SANITIZERS, '-O1', '-g', '-fno-omit-frame-pointer'];

/** @param {string} line */
function say(line) {
  writeSync(2, `iscsi-nbd: ${line}\n`);
}

/** Whether the addon that src/io/native.ts loads can be loaded. */
function loads() {
  try {
    createRequire(import.meta.url)(existsSync(BUILT) ? BUILT : BROUGHT);
    return true;
  } catch {
    return false;
  }
}

/**
 * Runs the compiler in ROOT. Rejects with what it said.
 * @param {string[]} args
 * @returns {Promise<void>}
 */
function compiler(args) {
  const command = process.env['CXX'] ?? 'c++';
  return new Promise((done, failed) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    child.stdout.on('data', (text) => (said += text));
    child.stderr.on('data', (text) => (said += text));
    child.on('error', () => {
      failed(new Error(`there is no C++ compiler ${command}; on Debian: apt-get install g++`));
    });
    child.on('close', (status) => {
      if (status === 0) done();
      else failed(new Error(`${command} ${args.join(' ')} failed:\n${said}`));
    });
  });
}

function includes() {
  return HEADERS.flatMap(({ name, folders, from }) => {
    const folder = folders.find((each) => existsSync(join(resolve(ROOT, each), name)));
    if (folder === undefined) {
      throw new Error(`the header ${name} is missing in ${folders.join(', ')}; get it by: ${from}`);
    }
    return ['-isystem', folder];
  });
}

/**
 * @param {string} addon
 * @param {boolean} sanitized
 */
async function build(addon, sanitized) {
  const compile = sanitized ? [...COMPILE, ...SANITIZE] : COMPILE;
  const link = sanitized ? ['-shared', ...SANITIZERS] : LINK;
  const folders = includes();
  mkdirSync(dirname(addon), { recursive: true });
  mkdirSync(join(ROOT, 'build'), { recursive: true });
  const work = mkdtempSync(join(ROOT, 'build/objects-'));
  try {
    const sources = readdirSync(join(ROOT, 'native')).filter((name) => name.endsWith('.cc'));
    const objects = sources.sort().map((name) => join(work, `${name}.o`));
    const left = sources.map((name, index) => ({ name, object: objects[index] ?? '' }));
    const worker = async () => {
      for (let next = left.pop(); next !== undefined; next = left.pop()) {
        await compiler([...compile, ...folders, '-c', `native/${next.name}`, '-o', next.object]);
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, worker));
    await compiler([...link, ...objects, '-o', join(work, 'addon')]);
    copyFileSync(join(work, 'addon'), `${addon}.new`);
    renameSync(`${addon}.new`, addon);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

const [option, out = BUILT] = process.argv.slice(2);
const ifNeeded = option === '--if-needed';
if (!ifNeeded || !loads()) {
  if (ifNeeded) say('no addon of this package loads here, so it is compiled now');
  try {
    await build(resolve(out), option === '--sanitize');
  } catch (error) {
    say(`the native addon was not built: ${error instanceof Error ? error.message : error}`);
    process.exit(1);
  }
}
