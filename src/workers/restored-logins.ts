import { keyText, type SessionRecord } from '../supervisor/session-record.js';
import { isSameDisk } from './login-homes.js';

/** Which logins of the records go to which worker: those with a disk in common to one. */
export function spreadOver(
  records: readonly SessionRecord[],
  workers: number,
): ReadonlyMap<string, number> {
  const loads = Array.from({ length: workers }, () => 0);
  const places = new Map<string, number>();
  const groups = groupsOf(records).map((group) => ({ group, weight: weightOf(group) }));
  for (const { group, weight } of groups.sort((a, b) => b.weight - a.weight)) {
    const least = loads.indexOf(Math.min(...loads));
    loads[least] = (loads[least] ?? 0) + weight;
    for (const record of group) places.set(keyText(record), least);
  }
  return places;
}

/** Each login, and each of its disks. */
function weightOf(group: readonly SessionRecord[]): number {
  return group.reduce((sum, { disks }) => sum + 1 + disks.length, 0);
}

/** Records that have disks in common, over others between them, too. */
function groupsOf(records: readonly SessionRecord[]): SessionRecord[][] {
  let groups: SessionRecord[][] = [];
  for (const record of records) {
    const related = groups.filter((group) => group.some((other) => areRelated(other, record)));
    const others = groups.filter((group) => !related.includes(group));
    groups = [...others, [...related.flat(), record]];
  }
  return groups;
}

function areRelated(one: SessionRecord, other: SessionRecord): boolean {
  if (isPathOf(one, other) || isPathOf(other, one)) return true;
  return one.disks.some((disk) => other.disks.some((its) => isSameDisk(disk, its)));
}

/** The first has paths over the target of the second. */
function isPathOf({ paths = [] }: SessionRecord, { targetName }: SessionRecord): boolean {
  return paths.some((path) => path.other?.targetName === targetName);
}
