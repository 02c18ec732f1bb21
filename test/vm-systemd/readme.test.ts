import { mkdir } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { buildVersions } from '../packaging/packages.js';
import { Machine, machineOfEnvironment } from './machine.js';
import { readmeSteps } from './readme-steps.js';

/** A Debian that has never had iscsi-nbd, with nothing but the package of the version that README names. */
let place: Workplace;
let tgt: Tgt;
let machine: Machine;

beforeAll(async () => {
  place = await Workplace.make();
  const packages = place.file('packages');
  await mkdir(packages);
  await buildVersions(packages, ['0.1.0']);
  machine = new Machine({ packages, ...machineOfEnvironment() });
  tgt = await startTgt({ luns: [{ sizeBytes: 64 << 20 }] });
  await machine.boot();
});
afterAll(async () => {
  await machine?.[Symbol.asyncDispose]();
  await tgt?.stop();
  await place?.[Symbol.asyncDispose]();
});

describe('the README on a fresh Debian with the package only', () => {
  it('the steps from the package to a LUN that is mounted at boot work as they are written', async ({
    annotate,
  }) => {
    await machine.run('! command -v iscsi-nbd && ! command -v node');
    const steps = readmeSteps('Mount a LUN at boot', tgt);
    const beganAtMs = performance.now();
    await machine.run(`
      cd /packages
      sudo() { DEBIAN_FRONTEND=noninteractive "$@"; }
      ${steps}
      findmnt -n /srv/data`);
    const seconds = (performance.now() - beganAtMs) / 1000;
    const commands = steps.split('\n').filter((line) => /^ *(?:sudo|echo) /.test(line)).length;
    await annotate(`${commands} commands, ${seconds.toFixed(0)} s to the first mounted LUN`);
  });

  it('the mount survives kill -9 of the daemon, and the commands that end it work', async () => {
    await machine.run(`
      echo kept >/srv/data/file
      sync
      kill -KILL $(systemctl show -P MainPID iscsi-nbd)
      until iscsi-nbd devices >/dev/null 2>&1; do sleep 0.5; done
      cat /srv/data/file`);
    await machine.run(`
      umount /srv/data
      iscsi-nbd logout ${tgt.iqn}
      iscsi-nbd persistent remove ${tgt.iqn}`);
    const left = await machine.try('iscsi-nbd sessions');
    expect(left.status).toBe(21);
  });

  it('the commands of the first look work without root', async () => {
    const url = `iscsi://10.0.2.2:${tgt.port}/${tgt.iqn}`;
    await machine.run(`
      cd /tmp
      as() { setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp "$@"; }
      as iscsi-nbd discover 10.0.2.2:${tgt.port}
      as iscsi-nbd check ${url}/1
      as iscsi-nbd serve ${url}/1 --run 'test -S "$socket"'
      as iscsi-nbd demo`);
  });
});
