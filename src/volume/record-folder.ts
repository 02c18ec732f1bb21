import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import { codeOf, errnoOf } from '../base/errors.js';
import { writeFileAtomically } from '../io/atomic-file.js';
import { VolumeError } from './volume-error.js';

const RECORD_BYTES_MAX = 1 << 20;

/** Records in a folder, one file each, mode 0600, replaced as a whole. */
export class RecordFolder<T> {
  readonly #folder: string;
  readonly #schema: z.ZodType<T>;
  readonly #keyOf: (record: T) => string;

  constructor(options: {
    readonly folder: string;
    readonly schema: z.ZodType<T>;
    /** What there is one record of; the file's name is made of it. */
    readonly keyOf: (record: T) => string;
  }) {
    this.#folder = options.folder;
    this.#schema = options.schema;
    this.#keyOf = options.keyOf;
  }

  /**
   * Every record. A malformed one is set aside as `.broken` and told of; throws VolumeError for one
   * that the system does not let us read now, as it may be a good one.
   */
  async all(): Promise<{ records: T[]; broken: string[] }> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const names = (await readdir(this.#folder)).filter((name) => name.endsWith('.json'));
    const records: T[] = [];
    const broken: string[] = [];
    for (const name of names.sort()) {
      const path = join(this.#folder, name);
      try {
        const record = await this.#read(path);
        if (this.placeOf(this.#keyOf(record)) !== path) throw new Error('its name is of another');
        records.push(record);
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') continue;
        if (errnoOf(error) !== '') throw unusable(path, error);
        await rename(path, `${path}.broken`);
        broken.push(`${path}.broken: ${String(error).replace(/\s+/g, ' ').slice(0, 300)}`);
      }
    }
    return { records, broken };
  }

  async find(key: string): Promise<T | null> {
    const path = this.placeOf(key);
    try {
      return await this.#read(path);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return null;
      throw unusable(path, error);
    }
  }

  /** Resolves when it is on the disk. Nothing is written that could not be read again. */
  async save(record: T): Promise<void> {
    const path = this.placeOf(this.#keyOf(record));
    try {
      const text = `${JSON.stringify(this.#schema.parse(record))}\n`;
      if (Buffer.byteLength(text) > RECORD_BYTES_MAX) throw new Error('it is too large');
      await writeFileAtomically(path, text);
    } catch (error) {
      throw unusable(path, error);
    }
  }

  async remove(key: string): Promise<void> {
    await rm(this.placeOf(key), { force: true });
  }

  /** When the record was written last; 0 without one. */
  async ageOf(key: string): Promise<number> {
    return stat(this.placeOf(key)).then(
      ({ mtimeMs }) => mtimeMs,
      () => 0,
    );
  }

  placeOf(key: string): string {
    const digest = createHash('sha256').update(key).digest('hex');
    return join(this.#folder, `${digest.slice(0, 24)}.json`);
  }

  async #read(path: string): Promise<T> {
    const found = await stat(path);
    if (!found.isFile() || found.size > RECORD_BYTES_MAX) throw new Error('it is no record');
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    return this.#schema.parse(value);
  }
}

function unusable(path: string, cause: unknown): VolumeError {
  const why = codeOf(cause) || 'it is malformed';
  const words = `The volume record ${path} cannot be read or written (${why}).`;
  return new VolumeError('failed', `${words} Make room or give access there, and try again.`, {
    cause,
  });
}
