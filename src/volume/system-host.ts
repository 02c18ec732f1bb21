import { spawn } from 'node:child_process';
import { constants, type Stats } from 'node:fs';
import { mkdir, open, readFile, realpath, rmdir, stat, statfs, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { codeOf, errnoOf } from '../base/errors.js';
import { deviceNumberOf } from '../io/device-number.js';
import { type Mount, parseMountInfo } from '../io/mount-info.js';
import { VolumeError } from './volume-error.js';
import type { FileSystemStatistics, PathKind, ProgramEnd, VolumeHost } from './volume-host.js';

/** What a program says and we repeat; the rest is dropped. */
const OUTPUT_BYTES_MAX = 64 << 10;
const SEARCH_PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

/** The host this process runs on. */
export const systemHost: VolumeHost = {
  run: runProgram,

  async mounts(): Promise<readonly Mount[]> {
    return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  },

  async resolvePath(path: string): Promise<string> {
    try {
      return await realpath(path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw unusable(path, error);
    }
    const parent = dirname(path);
    // What is not there yet is made below the nearest folder that is.
    return parent === path ? path : join(await this.resolvePath(parent), basename(path));
  },

  async kindOf(path: string): Promise<PathKind> {
    const found = await statOf(path);
    if (found === null) return 'none';
    if (found.isDirectory()) return 'folder';
    if (found.isBlockDevice()) return 'block';
    return found.isFile() ? 'file' : 'other';
  },

  async deviceNumberOf(path: string): Promise<string | null> {
    const found = await statOf(path);
    if (!found?.isBlockDevice()) return null;
    const { major, minor } = deviceNumberOf(found.rdev);
    return `${major}:${minor}`;
  },

  async sizeOf(device: string): Promise<number> {
    const number = await this.deviceNumberOf(device);
    if (number === null) return (await statOf(device))?.size ?? 0;
    // The kernel counts in sectors of 512 bytes here, whatever the device's blocks are.
    return Number(await readFile(`/sys/dev/block/${number}/size`, 'utf8')) * 512;
  },

  async read(device: string, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const file = await open(device, 'r');
    try {
      const bytes = Buffer.alloc(lengthBytes);
      const { bytesRead } = await file.read(bytes, 0, lengthBytes, offsetBytes);
      return bytes.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  },

  async isFree(device: string): Promise<boolean> {
    // Without O_CREAT, O_EXCL claims a block device as a mount does (open(2)).
    const flags = constants.O_RDONLY | constants.O_EXCL;
    try {
      await (await open(device, flags)).close();
      return true;
    } catch (error) {
      if (errnoOf(error) === 'EBUSY') return false;
      throw unusable(device, error);
    }
  },

  async makeFolder(path: string): Promise<void> {
    await mkdir(path, { recursive: true, mode: 0o750 }).catch((error: unknown) => {
      throw unusable(path, error);
    });
  },

  async makeFile(path: string): Promise<void> {
    try {
      await (await open(path, 'a', 0o600)).close();
    } catch (error) {
      throw unusable(path, error);
    }
  },

  async removeFolder(path: string): Promise<void> {
    await rmdir(path).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw unusable(path, error);
    });
  },

  async removeFile(path: string): Promise<void> {
    const found = await statOf(path);
    if (found === null) return;
    if (!found.isFile() || found.size > 0) {
      throw new VolumeError('refused', `${path} is not an empty file, so it is not removed.`);
    }
    await unlink(path).catch((error: unknown) => {
      throw unusable(path, error);
    });
  },

  async statistics(path: string): Promise<FileSystemStatistics> {
    const found = await statfs(path).catch((error: unknown) => {
      throw unusable(path, error);
    });
    return {
      totalBytes: found.blocks * found.bsize,
      availableBytes: found.bavail * found.bsize,
      usedBytes: (found.blocks - found.bfree) * found.bsize,
      totalInodes: found.files,
      availableInodes: found.ffree,
    };
  },
};

function runProgram(
  program: string,
  args: readonly string[],
  timeoutMs: number,
): Promise<ProgramEnd> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: SEARCH_PATH, LC_ALL: 'C' },
      // A file system is made to its end even if this process is killed meanwhile.
      detached: true,
    });
    const output = { stdout: '', stderr: '' };
    const take = (name: 'stdout' | 'stderr') => (text: Buffer) => {
      if (output[name].length < OUTPUT_BYTES_MAX) output[name] += text.toString();
    };
    child.stdout.on('data', take('stdout'));
    child.stderr.on('data', take('stderr'));
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      child.unref();
      const words = `${program} ${args.join(' ')} has not ended in ${timeoutMs / 1000} s.`;
      reject(new VolumeError('failed', `${words} Its disk may be away; try again.`));
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      const isMissing = errnoOf(error) === 'ENOENT';
      const nextStep = isMissing ? ' Install the package that has it.' : '';
      const words = `${program} cannot be started (${codeOf(error)}).${nextStep}`;
      reject(new VolumeError('failed', words, { cause: error }));
    });
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      if (status !== null) resolve({ status, ...output });
      else reject(new VolumeError('failed', `${program} was ended by ${signal}.`));
    });
  });
}

async function statOf(path: string): Promise<Stats | null> {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return null;
    throw unusable(path, error);
  }
}

function unusable(path: string, cause: unknown): VolumeError {
  const code = codeOf(cause) || 'unknown';
  return new VolumeError('failed', `${path} cannot be used (${code}).`, { cause });
}
