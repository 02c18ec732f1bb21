import { ALL_THEMES, type StormScene, type Strike, WEATHER } from './storm-types.js';
import { TARGET_NAME } from './world.js';

const ABORT_TASK = 1;
const LOGICAL_UNIT_RESET = 5;
/** Response codes of RFC 7143 §11.6.1 (Response). */
const NOT_SUPPORTED = 5;

/**
 * A command is stuck, its abort is refused or comes late, and so does the reset: what is sent
 * meanwhile is slow, and is not the reset's to end.
 */
function lateReset(scene: StormScene): void {
  const { random, world } = scene;
  const { faults } = world.node;
  const unit = scene.victim();
  const answer = random.pick(['refused', 'refused', 'late', 'taken'] as const);
  const resetMs = random.spread(50, 4000);
  const slowMs = resetMs + random.spread(50, 8000);
  const isWarm = random.chance(0.3);
  scene.tell(
    `a command to LUN ${unit.lun} is stuck, its abort is ${answer}, a ${isWarm ? 'warm' : 'LUN'} ` +
      `reset takes ${resetMs.toFixed(0)} ms, commands meanwhile ${slowMs.toFixed(0)} ms`,
  );
  for (const each of scene.units) each.model.flushMayAlwaysFail = true;
  let stuck = 1;
  let isResetting = false;
  let slow = 20;
  const remove = world.commands.add(({ lun }) => {
    if (lun !== unit.lun) return undefined;
    if (stuck > 0) {
      stuck -= 1;
      return 'ignore';
    }
    if (!isResetting || slow === 0) return undefined;
    slow -= 1;
    return { delayMs: slowMs };
  });
  faults.onTaskManagement = (code) => {
    if (code === ABORT_TASK && answer === 'refused') return NOT_SUPPORTED;
    if (code === LOGICAL_UNIT_RESET && isWarm) return NOT_SUPPORTED;
    return undefined;
  };
  faults.taskManagementDelayMs = (code) => {
    if (code === ABORT_TASK) return answer === 'late' ? resetMs : 0;
    isResetting = true;
    world.clock.at(world.nowMs + resetMs, () => {
      isResetting = false;
    });
    return resetMs;
  };
  const { taskTimeoutSeconds } = world.options;
  scene.lastUntil(world.nowMs + Math.min(taskTimeoutSeconds, 10) * 1000 + 10_000);
  scene.undo(taskTimeoutSeconds * 1000 + random.spread(5000, 30_000), () => {
    remove();
    faults.onTaskManagement = undefined;
    faults.taskManagementDelayMs = undefined;
  });
}

/** Another initiator clears the task set, and only the unit attention reports it. */
function clearedByAnother(scene: StormScene): void {
  const { random, world } = scene;
  const unit = scene.victim();
  const slowMs = random.spread(20, 2000);
  scene.tell(`LUN ${unit.lun} is slow for ${slowMs.toFixed(0)} ms; then its tasks are cleared`);
  unit.model.flushMayAlwaysFail = true;
  const remove = world.commands.add(({ lun }) =>
    lun === unit.lun ? { delayMs: 2 * slowMs } : undefined,
  );
  scene.undo(slowMs, () => {
    remove();
    world.node.clearTaskSet(TARGET_NAME, unit.lun);
  });
}

/** What becomes of tasks that end without an answer. */
export const RESET_STRIKES: readonly Strike[] = [
  { name: 'lateReset', weight: 2, themes: WEATHER, strike: lateReset },
  { name: 'clearedByAnother', weight: 1, themes: ALL_THEMES, strike: clearedByAnother },
];
