import type { Mount } from './volume-host.js';

/** The lines of /proc/self/mountinfo (proc_pid_mountinfo(5)); a malformed one is left out. */
export function parseMountInfo(text: string): Mount[] {
  return text.split('\n').flatMap((line) => {
    const [ours = '', theirs = ''] = splitOnce(line, ' - ');
    const [, , device, root, path, options] = ours.split(' ');
    const [type, source] = theirs.split(' ');
    if (device === undefined || root === undefined || path === undefined) return [];
    if (options === undefined || type === undefined || source === undefined) return [];
    return [
      {
        device,
        type,
        root: unescaped(root),
        path: unescaped(path),
        options: options.split(','),
        source: unescaped(source),
      },
    ];
  });
}

/** The mount that is seen at a path: the last one there. */
export function mountAt(mounts: readonly Mount[], path: string): Mount | null {
  return mounts.filter((mount) => mount.path === path).at(-1) ?? null;
}

/** A device of the kernel's NBD driver, or its node in /dev. */
export function isOfNbd(mount: Mount): boolean {
  return /^\/dev\/nbd\d+$/.test(mount.source) || /^\/nbd\d+$/.test(mount.root);
}

/** Space, tab, newline and backslash are written as octal numbers. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

function splitOnce(text: string, separator: string): readonly string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}
