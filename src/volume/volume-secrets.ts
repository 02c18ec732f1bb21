import { createHash } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../base/errors.js';
import { writeFileAtomically } from '../io/atomic-file.js';
import { normalIscsiName } from '../iscsi/login/target-name.js';
import type { VolumeSecrets } from './volume-spec.js';

/**
 * CHAP secrets on their way to the daemon, which takes the names of files only and reads them at
 * each login, also after its own restart. They are in a folder in memory (/run), mode 0600, until
 * the session ends.
 */
export class VolumeSecretFiles {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Options of a login that name the files; empty without secrets. */
  async optionsOf(
    targetName: string,
    secrets: VolumeSecrets,
  ): Promise<Readonly<Record<string, string>>> {
    const { chapUser, chapSecret, targetChapUser, targetChapSecret } = secrets;
    const place = `${this.#prefixOf(targetName)}${digest(chapUser ?? '')}`;
    return {
      ...(chapUser === undefined ? {} : { chapUser }),
      ...(await this.#keep('chapSecretFile', `${place}.secret`, chapSecret)),
      ...(targetChapUser === undefined ? {} : { targetChapUser }),
      ...(await this.#keep('targetChapSecretFile', `${place}.target-secret`, targetChapSecret)),
    };
  }

  /** The session to the target is gone. */
  async forget(targetName: string): Promise<void> {
    const names = await readdir(this.#folder).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    });
    const ours = names.filter((name) => name.startsWith(this.#prefixOf(targetName)));
    for (const name of ours) await rm(join(this.#folder, name), { force: true });
  }

  async #keep(
    option: string,
    name: string,
    secret: string | undefined,
  ): Promise<Readonly<Record<string, string>>> {
    if (secret === undefined) return {};
    const path = join(this.#folder, name);
    await writeFileAtomically(path, secret);
    return { [option]: path };
  }

  #prefixOf(targetName: string): string {
    return `${digest(normalIscsiName(targetName))}-`;
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 24);
}
