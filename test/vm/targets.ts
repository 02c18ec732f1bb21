/** What several tests of the VM want of a real tgt. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { Tgt } from '../helpers/tgt.js';

export const MIB = 1 << 20;

export async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const bytes of createReadStream(path)) hash.update(bytes as Buffer);
  return hash.digest('hex');
}

/** Sessions the first target has, as `tgtadm` shows them. */
export async function sessionsOf(tgt: Tgt): Promise<number> {
  const shown = await tgt.adm('--lld', 'iscsi', '--mode', 'conn', '--op', 'show', '--tid', '1');
  return shown.match(/^Session: /gm)?.length ?? 0;
}

/** The URL of every LUN of the first target. */
export function allLuns(tgt: Tgt): string {
  return tgt.url().replace(/\/1$/, '');
}
