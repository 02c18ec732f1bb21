/** Linux itself is built for at most 8192 processors. */
const PROCESSORS_MAX = 8192;

/**
 * The numbers of a list as the kernel and `taskset` write it (`0-3,5`; cpuset(7), "List format"),
 * ascending; null when it is none: empty, a range that runs backwards, a number of 8192 or more.
 */
export function parseCpuList(text: string): readonly number[] | null {
  const found = new Set<number>();
  for (const item of text.split(',')) {
    const [, first, last] = /^\s*(\d{1,4})(?:-(\d{1,4}))?\s*$/.exec(item) ?? [];
    if (first === undefined) return null;
    const [from, to] = [Number(first), Number(last ?? first)];
    if (from > to || to >= PROCESSORS_MAX) return null;
    for (let cpu = from; cpu <= to; cpu += 1) found.add(cpu);
  }
  return [...found].sort((left, right) => left - right);
}
