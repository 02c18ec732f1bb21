import { ALL_THEMES, type StormScene, type Strike, WEATHER } from './storm-types.js';

/** As a real cache, a disk that loses power has written back what it liked, a cell at a time. */
export function destaged(salt: number): (lba: number) => boolean {
  return (lba) => ((lba >> 3) * 2654435761 + salt) % 3 === 0;
}

function restart(scene: StormScene): void {
  const { random, world, units } = scene;
  const powerLoss = random.chance(0.5);
  const downMs = random.spread(1, 30_000);
  scene.tell(`the target restarts, down for ${downMs.toFixed(0)} ms, power loss: ${powerLoss}`);
  world.network.become('refused');
  const salt = random.whole(0, 1 << 20);
  for (const link of [...world.network.links]) link.cut();
  world.node.restart();
  for (const unit of units) {
    if (powerLoss) unit.disk.powerLoss(destaged(salt));
    unit.restarted(powerLoss);
  }
  scene.undo(downMs, () => world.network.become('up'));
}

function refuseLogins(scene: StormScene): void {
  const { random } = scene;
  const { node, network } = scene.world;
  const status = random.pick([
    { class: 2, detail: 0 },
    { class: 2, detail: 2 },
    { class: 2, detail: 3 },
    { class: 3, detail: 0 },
    { class: 3, detail: 1 },
    { class: 3, detail: 2 },
  ]);
  const forMs = random.spread(100, 30_000);
  scene.tell(`logins are refused with ${status.class}/${status.detail} for ${forMs} ms`);
  node.faults.loginStatus = status;
  network.current?.cut();
  scene.undo(forMs, () => {
    node.faults.loginStatus = undefined;
  });
}

function asyncMessage(scene: StormScene): void {
  const { random } = scene;
  const event = random.pick([1, 2, 3, 4]);
  scene.tell(`async message ${event}`);
  for (const connection of scene.world.node.connections) {
    connection.sendAsync({ event, parameters: [0, random.whole(0, 3), random.whole(0, 3)] });
  }
}

function smallWindow(scene: StormScene): void {
  const { node } = scene.world;
  const size = scene.random.whole(1, 4);
  scene.tell(`a command window of ${size}`);
  node.setCommandWindow(size);
  scene.undo(scene.random.spread(100, 10_000), () => node.setCommandWindow(128));
}

function otherLatency(scene: StormScene): void {
  const seconds = scene.random.pick([1, 10, 30, Number.POSITIVE_INFINITY]);
  scene.tell(`a removal latency of ${seconds} s`);
  scene.world.stack.setRemovalLatency(seconds);
  scene.latencyChanged(seconds * 1000);
}

/** What happens to the target as a whole, and what the operator sets. */
export const TARGET_STRIKES: readonly Strike[] = [
  { name: 'restart', weight: 2, themes: WEATHER, strike: restart },
  { name: 'refuseLogins', weight: 1, themes: WEATHER, strike: refuseLogins },
  { name: 'async', weight: 1, themes: WEATHER, strike: asyncMessage },
  { name: 'window', weight: 1, themes: WEATHER, strike: smallWindow },
  { name: 'latency', weight: 1, themes: ALL_THEMES, strike: otherLatency },
];
