// What scripts/bench-parts/vm runs inside of the VM. For each target the same LUN is there as a
// block device of every initiator at once, and the same fio job goes to one after the other, round
// after round; what is compared is the ratio within a round.
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DISK_MEBIBYTES, prepare, run, startDisk, startTarget } from './vm-disks.mjs';

const { values } = parseArgs({
  options: {
    targets: { type: 'string' },
    variants: { type: 'string' },
    cases: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    'fast-target': { type: 'string' },
    'warm-up': { type: 'string' },
  },
});
const seconds = Number(values.seconds);
/** Kernel clock ticks a second in /proc; USER_HZ is 100 on every Linux we run on. */
const TICKS = 100;
/** After so many the speed of a fresh process grows no more. */
const WARM_UP_IOS = 15_000;

/** `randread-4k-32` */
function caseOf(name) {
  const [rw, bs, depth] = name.split('-');
  return { name, rw, bs, depth };
}

/** Time that any processor was busy, in ticks. */
function machineTicks() {
  const [user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8')
    .split('\n', 1)[0]
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return user + nice + system + irq + softirq;
}

async function fio(disk, { rw, bs, depth }, runSeconds, more = ['--time_based']) {
  const argv = [
    '--name=bench',
    '--thread',
    `--filename=${disk.device}`,
    '--direct=1',
    '--ioengine=libaio',
    `--rw=${rw === 'mixed' ? 'randrw' : rw}`,
    ...(rw === 'mixed' ? ['--rwmixread=70'] : []),
    `--bs=${bs}`,
    `--iodepth=${depth}`,
    `--size=${DISK_MEBIBYTES}m`,
    ...more,
    `--runtime=${runSeconds}`,
    '--norandommap',
    '--randrepeat=0',
    '--output-format=json',
  ];
  const before = { own: disk.cpuTicks(), machine: machineTicks() };
  const { stdout } = await run('fio', argv, { maxBuffer: 1 << 26 });
  const own = disk.cpuTicks();
  const machine = machineTicks();
  const [job] = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs;
  if (job.error !== 0) throw new Error(`fio failed on ${disk.variant}: error ${job.error}`);
  const sides = [job.read, job.write].filter((side) => side.total_ios > 0);
  const sum = (key) => sides.reduce((total, side) => total + side[key], 0);
  const ios = sum('total_ios');
  const worst = (key) => Math.max(...sides.map((side) => side.clat_ns.percentile[key])) / 1000;
  const microsOf = (ticks) => (ticks / TICKS / ios) * 1e6;
  return {
    iops: sum('iops'),
    megabytes: sum('bw_bytes') / 1e6,
    p50: worst('50.000000'),
    p99: worst('99.000000'),
    userMicros: microsOf(own.user - before.own.user),
    systemMicros: microsOf(own.system - before.own.system),
    machineMicros: microsOf(machine - before.machine),
  };
}

async function measure(targetName) {
  const target = await startTarget(targetName, { fastTarget: values['fast-target'] });
  const disks = [];
  for (const [index, variant] of values.variants.split(',').entries()) {
    disks.push(await startDisk(variant, target, index));
    console.error(`${targetName} ${variant}: ${disks.at(-1).device}, ${disks.at(-1).queue}`);
  }
  // V8 compiles what has run often enough, which takes an emulated processor a while.
  for (const disk of disks) {
    if (!disk.variant.startsWith('ours')) continue;
    await fio(disk, caseOf('mixed-4k-32'), values['warm-up'], [`--number_ios=${WARM_UP_IOS}`]);
  }
  const results = [];
  for (const entry of values.cases.split(',').map(caseOf)) {
    // What is not measured: compiled code, grown socket buffers, touched pages.
    for (const disk of disks) await fio(disk, entry, Math.min(1, seconds));
    const runs = disks.map(() => []);
    for (let round = 0; round < Number(values.rounds); round += 1) {
      for (let turn = 0; turn < disks.length; turn += 1) {
        const index = (round + turn) % disks.length;
        runs[index].push(await fio(disks[index], entry, seconds));
      }
    }
    results.push({ target: targetName, case: entry.name, runs });
    const words = disks.map(({ variant }, index) => {
      const speeds = runs[index].map(({ iops }) => iops.toFixed(0)).join(' ');
      const last = runs[index].at(-1);
      const micros = ['userMicros', 'systemMicros', 'machineMicros'].map((key) =>
        last[key].toFixed(0),
      );
      return `${variant} ${speeds}, CPU ${micros.join('+')} µs`;
    });
    console.error(`${targetName} ${entry.name}: ${words.join(' | ')}`);
  }
  for (const disk of disks) {
    await disk.stop().catch((error) => console.error(`${disk.variant}: ${error.message}`));
  }
  return results;
}

await prepare();
const results = [];
for (const name of values.targets.split(',')) results.push(...(await measure(name)));
const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
const isUserMode = readFileSync('/proc/cpuinfo', 'utf8').includes('User Mode Linux');
const variants = values.variants.split(',');
const done = { kernel, isUserMode, variants, rounds: Number(values.rounds), seconds, results };
writeFileSync('/results/bench-vm.json', `${JSON.stringify(done, null, 1)}\n`);
// Nothing of the machine is worth taking down: it is thrown away.
process.exit(0);
