import { passesAttention } from '../../src/target/scsi/scsi-unit.js';
import type { StormScene } from './storm-types.js';
import type { StormUnit } from './storm-unit.js';
import { TARGET_NAME, type World } from './world.js';

const SCSI_RESPONSE = 0x21;
const WRITE_OPCODES: readonly number[] = [0x2a, 0x8a];
const INQUIRY_DATA_CHANGED = { key: 0x06, asc: 0x3f, ascq: 0x03 } as const;

/** The other disk comes, and goes after a while. */
function exchangeFor(scene: StormScene, unit: StormUnit): void {
  const { random, world } = scene;
  const target = world.node.targets.get(TARGET_NAME)!;
  const forMs = random.spread(200, 20_000);
  scene.tell(`LUN ${unit.lun} is another disk for ${forMs.toFixed(0)} ms, and says so`);
  unit.mayFail = true;
  unit.perhapsRestarted();
  target.luns.set(unit.lun, unit.decoy);
  scene.undo(forMs, () => {
    scene.tell(`LUN ${unit.lun} is itself again`);
    target.luns.set(unit.lun, unit.disk);
  });
}

/** The disk is exchanged in a living session; one command has the attention, whichever it is. */
export function exchange(scene: StormScene): void {
  if (scene.isStarting) return;
  const unit = scene.victim();
  unit.decoy.announcesChanges = false;
  tellUntilKnown(scene.world, unit.lun);
  exchangeFor(scene, unit);
}

/**
 * Unit attention 3Fh/03h for the first command that asks for it, and, since what is on the wire
 * cannot be revoked, for those that were sent before the answer had arrived.
 */
export function tellUntilKnown(world: World, lun: number): void {
  const { faults } = world.node;
  // A process before this one may have left a session there.
  const { tsih } = world.stack.handle.session;
  // By the qualifier it is known which LUN says it, where several are exchanged.
  const ascq = 0x40 + lun;
  let isTold = false;
  const remove = world.commands.addReport((context) => {
    if (context.lun !== lun || context.tsih !== tsih) return undefined;
    if (passesAttention(context.opcode)) return undefined;
    return { sense: { ...INQUIRY_DATA_CHANGED, ascq } };
  });
  const before = faults.onSend;
  faults.onSend = (header, data) => {
    const isChange = data[4] === 0x06 && data[14] === 0x3f && data[15] === ascq;
    if (!isTold && (header[0] ?? 0) === SCSI_RESPONSE && isChange) {
      isTold = true;
      faults.onSend = before;
      world.clock.at(world.nowMs, () => {
        const link = world.network.current;
        if (link === null) remove();
        else link.afterRoundTrip(remove);
      });
    }
    return before?.(header, data);
  };
}

/** A late write meets one exchange: a second one would not be reported to its initiator. */
const awaiting = new WeakSet<StormUnit>();

/**
 * The disk has an attention, and it is exchanged during the probe: the one command that has the
 * second attention is a write that was under way all the time.
 */
export function exchangeInLook(scene: StormScene): void {
  const { random, world } = scene;
  if (scene.isStarting) return;
  const unit = scene.victim();
  const target = world.node.targets.get(TARGET_NAME)!;
  if (awaiting.has(unit)) return;
  awaiting.add(unit);
  unit.decoy.announcesChanges = false;
  let before = random.whole(3, 10);
  let isLate = false;
  const roundTripMs = 2 * world.network.latencyMs + world.network.jitterMs;
  // The look begins a round trip after the write, and asks once in each.
  const lateMs = roundTripMs * (1 + before + random.between(0, 3));
  scene.tell(`LUN ${unit.lun} wants a look; at its question ${before} it is exchanged`);
  const remove = world.commands.add(({ lun, opcode, lba }) => {
    if (lun !== unit.lun) return undefined;
    // A write that arrives at the other disk has the attention before it can be late.
    const isItself = target.luns.get(unit.lun) === unit.disk;
    if (!isLate && isItself && WRITE_OPCODES.includes(opcode)) {
      isLate = true;
      world.clock.at(world.nowMs + roundTripMs / 2, () => {
        world.node.raiseAttention(TARGET_NAME, unit.lun, { asc: 0x2a, ascq: 0x01 });
      });
      return { delayMs: lateMs, startsLate: true };
    }
    if (!isLate || lba !== null) return undefined;
    before -= 1;
    if (before === 0) {
      remove();
      world.clock.at(world.nowMs, () => {
        if (scene.isCalm || scene.isStarting) return;
        tellUntilKnown(world, unit.lun);
        exchangeFor(scene, unit);
      });
    }
    return undefined;
  });
  scene.undo(20_000, () => {
    remove();
    awaiting.delete(unit);
  });
}
