import {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { invariant } from '../base/errors.js';
import { TargetDisk, type TargetDiskOptions } from './disk.js';
import type { DiskStore } from './disk-store.js';

const ZEROS = Buffer.alloc(1 << 20);

/** A disk in a regular file: the demo's way to keep an image. Every byte counts as mapped. */
class FileStore implements DiskStore {
  sizeBytes: number;
  readonly #fd: number;

  constructor(fd: number, sizeBytes: number) {
    this.#fd = fd;
    this.sizeBytes = sizeBytes;
  }

  read(into: Buffer, offset: number): void {
    let done = 0;
    while (done < into.length) {
      const size = readSync(this.#fd, into, done, into.length - done, offset + done);
      if (size === 0) {
        into.fill(0, done);
        return;
      }
      done += size;
    }
  }

  write(from: Uint8Array, offset: number): void {
    let done = 0;
    while (done < from.length) {
      done += writeSync(this.#fd, from, done, from.length - done, offset + done);
    }
  }

  unmap(offset: number, length: number): void {
    for (let done = 0; done < length; done += ZEROS.length) {
      this.write(ZEROS.subarray(0, Math.min(ZEROS.length, length - done)), offset + done);
    }
  }

  extent(_offset: number, lengthMax: number): { mapped: boolean; length: number } {
    return { mapped: true, length: lengthMax };
  }

  flush(): void {
    fsyncSync(this.#fd);
  }

  resize(sizeBytes: number): void {
    ftruncateSync(this.#fd, sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/**
 * The file at `path` as a disk: its own size rounded down to whole blocks, or `sizeBytes`, to
 * which the file is then extended.
 */
export function openFileDisk(
  path: string,
  options: TargetDiskOptions & { readonly sizeBytes?: number } = {},
): TargetDisk {
  const fd = openSync(path, options.readOnly ? 'r' : options.sizeBytes === undefined ? 'r+' : 'a+');
  closeSync(fd);
  const handle = openSync(path, options.readOnly ? 'r' : 'r+');
  const blockSize = options.blockSizeBytes ?? 512;
  const fileBytes = fstatSync(handle).size;
  const sizeBytes = options.sizeBytes ?? fileBytes - (fileBytes % blockSize);
  invariant(sizeBytes > 0, 'a disk has at least one block');
  if (sizeBytes > fileBytes && !options.readOnly) ftruncateSync(handle, sizeBytes);
  return new TargetDisk(new FileStore(handle, sizeBytes), options);
}
