import type { Weather } from './network.js';
import { type StormScene, type Strike, WEATHER } from './storm-types.js';

function cutInBytes(scene: StormScene): void {
  const { world, random } = scene;
  const link = world.network.current;
  const bytes = Math.floor(random.spread(1, 400_000));
  scene.tell(`the link breaks in ${bytes} bytes`);
  if (link === null) return;
  if (random.chance(0.5)) link.cutAfterSent = bytes;
  else link.cutAfterReceived = bytes;
}

function badWeather(scene: StormScene): void {
  const { random } = scene;
  const { network } = scene.world;
  const weather = random.pick<Weather>(['refused', 'unreachable', 'unknownHost', 'blackhole']);
  const forMs = random.spread(100, 40_000);
  scene.tell(`the network is ${weather} for ${forMs.toFixed(0)} ms`);
  network.become(weather);
  if (weather !== 'blackhole' || random.chance(0.3)) network.current?.cut();
  scene.undo(forMs, () => network.become('up'));
}

/** What happens between the initiator and the target. */
export const NETWORK_STRIKES: readonly Strike[] = [
  { name: 'cut', weight: 2, themes: WEATHER, strike: cutInBytes },
  { name: 'weather', weight: 2, themes: WEATHER, strike: badWeather },
];
