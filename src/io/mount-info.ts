/** A line of /proc/self/mountinfo (proc_pid_mountinfo(5)). */
export type Mount = {
  /** `major:minor` of the file system. */
  readonly device: string;
  /** The folder or file of the file system that is mounted. */
  readonly root: string;
  readonly path: string;
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
};

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
        root: unescapeField(root),
        path: unescapeField(path),
        options: options.split(','),
        source: unescapeField(source),
      },
    ];
  });
}

/** Space, tab, newline and backslash are written as octal numbers. */
export function unescapeField(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

function splitOnce(text: string, separator: string): readonly string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}
