import { mkdir, open, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';

let drafts = 0;

/**
 * Replaces a file as a whole, mode 0600: after a crash at any moment there is the old text or the
 * new one, on the disk and not only in the cache. Makes its directory (0700). Rejects with what the
 * system says.
 */
export async function writeFileAtomically(path: string, text: string): Promise<void> {
  const directory = dirname(path);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  drafts += 1;
  const draft = `${path}.${process.pid}.${drafts}.tmp`;
  try {
    const file = await open(draft, 'w', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (error) {
    await unlink(draft).catch(() => undefined);
    throw error;
  }
  const parent = await open(directory, 'r');
  await parent.sync().finally(() => parent.close());
}
