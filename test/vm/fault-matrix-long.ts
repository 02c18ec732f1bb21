/**
 * The same faults for iscsi-nbd, qemu-nbd and open-iscsi at the same time, each with two LUNs of a
 * target of its own at one portal: scripts/test-parts/fault-matrix, one VM for each fault.
 */
import { appendFile, mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { run, shell, sizeOf } from './attached.js';
import {
  INITIATORS,
  type Initiator,
  type InitiatorName,
  startInitiator,
} from './matrix-initiators.js';
import { MatrixLoad } from './matrix-load.js';
import { Relay } from './matrix-proxy.js';
import { MIB } from './targets.js';
import { Wire } from './wire.js';

const [PORT, TARGET_PORT] = [13_300, 13_301];
const iqnOf = (name: InitiatorName) => `iqn.2024-01.com.example:${name}`;

class Scene {
  readonly node: TargetNode;
  readonly disks = new Map<InitiatorName, readonly [TargetDisk, TargetDisk]>();
  readonly initiators = new Map<InitiatorName, Initiator>();
  /** What is not seen by the loads, for each initiator. */
  readonly remarks = new Map<InitiatorName, string>();

  constructor(
    readonly relay: Relay,
    readonly wire: Wire,
    readonly server: TargetServer,
    node: TargetNode,
  ) {
    this.node = node;
  }

  async away(seconds: number, meanwhile: () => void): Promise<void> {
    await this.server.stopListening();
    this.node.restart();
    meanwhile();
    await sleep(seconds * 1000);
    await this.server.listen(TARGET_PORT);
  }

  async ofEach(work: (name: InitiatorName, initiator: Initiator) => Promise<void>): Promise<void> {
    await Promise.all([...this.initiators].map(([name, initiator]) => work(name, initiator)));
  }
}

function newDisk(serial: string): TargetDisk {
  return TargetDisk.ram({ sizeBytes: 24 * MIB, writeCache: 'volatile', serial });
}

async function cut(scene: Scene, how: 'reset' | 'drop', seconds: number): Promise<void> {
  await scene.wire.cut(how);
  await sleep(seconds * 1000);
  await scene.wire.mend();
}

/** Another disk, full of one byte; what has been written to it is counted. */
async function otherDisk(scene: Scene): Promise<void> {
  const others = new Map<InitiatorName, TargetDisk>();
  const put = (serial: string) => {
    for (const name of INITIATORS) {
      const other = newDisk(`${serial}-${name}`);
      others.set(name, other);
      scene.node.setLun(iqnOf(name), 0, other);
    }
  };
  await scene.away(4, () => put('OTHER'));
  await sleep(20_000);
  const empty = Buffer.alloc(24 * MIB);
  for (const [name, other] of others) {
    const isWritten = !other.read(0, 24 * MIB).equals(empty);
    scene.remarks.set(name, isWritten ? 'other disk **written**' : 'other disk untouched');
  }
  const back = () => {
    for (const [name, [disk]] of scene.disks) scene.node.setLun(iqnOf(name), 0, disk);
  };
  await scene.away(2, back);
}

async function growth(scene: Scene): Promise<void> {
  for (const [name, disks] of scene.disks) {
    disks[0].resize(32 * MIB);
    // CAPACITY DATA HAS CHANGED (SPC-4 annex F).
    scene.node.raiseAttention(iqnOf(name), 0, { asc: 0x2a, ascq: 0x09 });
  }
  await sleep(15_000);
  await scene.ofEach(async (name, { devices }) => {
    const device = devices[0];
    const path = `/sys/block/${device.slice('/dev/'.length)}/size`;
    const bytes = device.includes('nbd')
      ? await sizeOf(device)
      : Number(await run('cat', path)) * 512;
    scene.remarks.set(name, bytes === 32 * MIB ? 'new size seen' : 'old size');
  });
}

async function lunGone(scene: Scene): Promise<void> {
  for (const name of INITIATORS) scene.node.setLun(iqnOf(name), 0, null);
  await sleep(8000);
  for (const [name, [disk]] of scene.disks) scene.node.setLun(iqnOf(name), 0, disk);
}

async function slow(scene: Scene): Promise<void> {
  scene.node.state.faults.onCommand = ({ lba }) => (lba === null ? undefined : { delayMs: 3000 });
  await sleep(12_000);
  scene.node.state.faults.onCommand = undefined;
}

/** All memory but 40 MiB is taken for 10 s by a process that the kernel kills first. */
async function noMemory(): Promise<void> {
  const said = await shell(`
    free=$(awk '/^MemAvailable/ { print int($2 / 1024) - 40 }' /proc/meminfo)
    python3 -c "
import sys, time
open('/proc/self/oom_score_adj', 'w').write('1000')
held = []
for _ in range($free):
  held.append(b'x' * 1048576)
print(open('/proc/meminfo').read()[:84])
time.sleep(10)" || true`);
  console.log(said);
}

async function clockJump(): Promise<void> {
  await run('date', '-s', '+2 hours');
  await sleep(4000);
  await run('date', '-s', '-3 hours');
  await sleep(4000);
  await run('date', '-s', '+1 hour');
}

const FAULTS: Readonly<Record<string, (scene: Scene) => Promise<unknown>>> = {
  'no fault': () => sleep(3000),
  'target restarts, 5 s': (scene) => scene.away(5, () => undefined),
  'target loses its write cache, 5 s': (scene) =>
    scene.away(5, () => scene.node.restart({ powerLoss: true })),
  'links reset, then refused for 3 s': (scene) => cut(scene, 'reset', 3),
  'packets dropped for 20 s': (scene) => cut(scene, 'drop', 20),
  'another disk behind the LUN for 20 s': otherDisk,
  'the LUN grows': growth,
  'the LUN is gone for 8 s': lunGone,
  'kill -9 of the initiator, started again': (scene) =>
    scene.ofEach(async (name, initiator) => {
      await initiator.killAndStart().catch((error: Error) => {
        scene.remarks.set(name, `does not start again`);
        console.log(`${name}: ${error.message}`);
      });
    }),
  'the target reads nothing for 8 s': async ({ relay }) => {
    relay.stopReading(true);
    await sleep(8000);
    relay.stopReading(false);
  },
  'each read and write takes 3 s, for 12 s': slow,
  'bits of read data change on the wire': async ({ relay }) => {
    relay.spoilEveryMs = 2000;
    await sleep(8000);
    relay.spoilEveryMs = 0;
  },
  'memory is short for 10 s': noMemory,
  'the clock jumps by hours': clockJump,
};

async function make(digests: boolean, names: readonly InitiatorName[]): Promise<Scene> {
  const disks = new Map<InitiatorName, readonly [TargetDisk, TargetDisk]>();
  for (const name of INITIATORS) disks.set(name, [newDisk(`A-${name}`), newDisk(`B-${name}`)]);
  const targets = [...disks].map(([name, [first, second]]) => ({
    name: iqnOf(name),
    luns: { 0: first, 1: second },
    // That of the relay.
    portals: [{ address: '127.0.0.1', port: PORT, portalGroupTag: 1 }],
  }));
  const node = new TargetNode({ targets, powerOnAttention: 'after-restart' });
  const server = await startTargetServer(node, { port: TARGET_PORT });
  const relay = await Relay.listen(PORT, TARGET_PORT);
  const scene = new Scene(relay, await Wire.to(`127.0.0.1:${PORT}`), server, node);
  for (const name of names) {
    const iqn = iqnOf(name);
    const [first, second] = disks.get(name) ?? [];
    if (first !== undefined && second !== undefined) scene.disks.set(name, [first, second]);
    scene.initiators.set(name, await startInitiator(name, { port: PORT, iqn, digests }));
  }
  return scene;
}

it.each(Object.entries(FAULTS))('the fault: %s', { timeout: 280_000 }, async (title, fault) => {
  const folder = await mkdtemp(join(tmpdir(), 'matrix-'));
  const scene = await make(title.includes('on the wire'), INITIATORS);
  const loads = new Map<InitiatorName, MatrixLoad>();
  for (const [name, { devices }] of scene.initiators) {
    const place = join(folder, name);
    await mkdir(place);
    loads.set(name, await MatrixLoad.start(place, devices));
  }
  const further = () => Promise.all([...loads.values()].map((load) => load.untilFurther()));
  await further();
  await fault(scene);
  await further();
  await Promise.all(
    [...loads].map(async ([name, load]) => {
      const seen = await load.end();
      const remark = scene.remarks.get(name) ?? '';
      const line = JSON.stringify({ fault: title, name, ...seen, remark });
      console.log(line);
      await appendFile('/results/results.jsonl', `${line}\n`);
    }),
  );
  // The machine is ended now, with its hung processes. At power-off the kernel would flush the disks
  // of open-iscsi, and this flush would wait for the target.
  await shell(`for disk in /sys/class/scsi_disk/*; do
      echo temporary write through >$disk/cache_type
    done`);
});
