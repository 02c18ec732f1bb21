import type { PortGroup, PortGroupSettings } from '../../src/target/settings.js';
import { answerTo, newWorld, read } from './asked.js';
import type { ModelClient } from './model-client.js';
import type { Network } from './network.js';
import type { Seeded } from './seeded.js';
import { TARGET_NAME, type World, type WorldOptions } from './world.js';

export const READ_10 = 0x28;
export const WRITE_10 = 0x2a;
export const GROUPS_CHANGED = { asc: 0x2a, ascq: 0x06 };

export const pathsUp = (world: World): number =>
  world.stack.paths?.unitOf(0)?.paths.filter(({ path }) => path.isUsable).length ?? 0;

export const eventsOf = (world: World, name: string): World['events'] =>
  world.events.filter(({ event }) => event === name);

/** All connections over it end. */
export function cut({ links }: Network): void {
  for (const link of [...links]) link.cut();
}

/** Nothing comes back over it until `become('up')`. */
export function refuse(network: Network): void {
  network.become('refused');
  cut(network);
}

/** Writes are not answered until the returned function is called. */
export function ignoreWrites(world: World): () => void {
  return world.commands.add(({ opcode }) => (opcode === WRITE_10 ? 'ignore' : undefined));
}

/** The first write is done so much later, whatever becomes of its connection. Ended by the result. */
export function firstWriteIsLate(world: World, delayMs: number): () => void {
  let isLate = true;
  return world.commands.add(({ opcode }) => {
    if (opcode !== WRITE_10 || !isLate) return undefined;
    isLate = false;
    return { delayMs, outlivesLink: true };
  });
}

/** Options of a session over several paths, with short deadlines and any policy. */
export function anyPaths(random: Seeded): NonNullable<WorldOptions['session']> {
  return {
    multipath: 'auto',
    pathPolicy: random.pick(['least-queue', 'round-robin', 'failover']),
    removalLatencySeconds: 600,
    noopIntervalSeconds: 2,
    noopTimeoutSeconds: 2,
  };
}

/** A target that speaks of its groups in one of the ways that targets have. */
export function anyGroups(random: Seeded): PortGroupSettings {
  const header = random.pick([null, 'refused', 'ignored'] as const);
  return {
    ...(header === null ? {} : { extendedHeader: header }),
    transitionSeconds: random.pick([0, 1, 5]),
    canBeSet: random.chance(0.3),
    isGroupUntold: random.chance(0.2),
  };
}

/** A disk with paths to so many portals, all of them up; by default the first one is used. */
export async function severalPaths(portals: number, options: Omit<WorldOptions, 'random'> = {}) {
  const paths = portals * (options.session?.sessionsPerPortal ?? 1);
  const world = await newWorld({
    portals,
    ...options,
    session: { multipath: 'auto', pathPolicy: 'failover', ...options.session },
  });
  await world.when(() => pathsUp(world) === paths, 10_000);
  return { world, networks: world.networks as Network[], client: world.newClient() };
}

export async function twoPaths(options: Omit<WorldOptions, 'random'> = {}) {
  const { world, client, networks } = await severalPaths(2, options);
  const [first, second] = networks as [Network, Network];
  return { world, first, second, client };
}

/** Portals over which the commands for data of a read go. */
export async function usedPortals(world: World, client: ModelClient): Promise<number[]> {
  const tags = new Set<number>();
  const back = world.commands.add(({ opcode, portalGroupTag }) => {
    if (opcode === READ_10) tags.add(portalGroupTag);
    return undefined;
  });
  const { error } = await answerTo(world, client, read());
  back();
  if (error !== 0) throw new Error(`the read failed with ${error}`);
  return [...tags];
}

/** Two paths over target port groups whose states tests change. */
export async function twoGroups(options: Omit<WorldOptions, 'random'> = {}) {
  const portGroups = new Map<number, PortGroup>([
    [1, { state: 'optimized' }],
    [2, { state: 'nonOptimized' }],
  ]);
  const paths = await twoPaths({ portGroups, ...options });
  const { world, client } = paths;
  const become = (tag: number, state: PortGroup['state'], isTold = true) => {
    (options.portGroups ?? portGroups).set(tag, { state });
    if (isTold) world.node.raiseAttention(TARGET_NAME, 0, GROUPS_CHANGED);
  };
  return { ...paths, become, used: () => usedPortals(world, client) };
}
