import { mkdir, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type DeviceName,
  type LinkPaths,
  linkPath,
  propertiesText,
  publishNames,
  withdrawNames,
} from '../../src/io/device-symlinks.js';
import type { NbdAddon } from '../../src/io/nbd-netlink.js';

let root = '';
let paths: LinkPaths;
const announced: string[] = [];
const addon = {
  writeAttribute: async (path: string, text: string) => {
    announced.push(`${path.slice(root.length)} ${text}`);
  },
} as unknown as NbdAddon;

const NAME: DeviceName = {
  index: 3,
  identifier: 'iscsi-nbd:00112233445566aa:1',
  portal: { host: '192.0.2.7', port: 3260 },
  targetName: 'iqn.2024-01.com.example:disk1',
  lun: 1,
  identifiers: ['naa.6001405aabbccdd00112233445566778', 't10.IET 00010001'],
  vendor: 'LIO-ORG ',
  product: 'disk one',
  serial: 'ab/c',
};

const SECOND = { ...NAME, index: 4, lun: 2, identifier: 'iscsi-nbd:00112233445566aa:2' };

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'nbd-links-'));
  paths = {
    links: join(root, 'dev'),
    properties: join(root, 'run/devices'),
    sys: join(root, 'sys'),
  };
  await mkdir(paths.links);
  announced.length = 0;
});

afterEach(() => rm(root, { recursive: true }));

describe('the stable names of a device', () => {
  it('the names are a symlink of our own and the properties of the udev rule, and udev is notified', async () => {
    await publishNames(addon, NAME, paths);
    expect(await readlink(join(root, 'dev/iqn.2024-01.com.example:disk1/lun1'))).toBe('/dev/nbd3');
    expect(await readFile(join(root, 'run/devices/iscsi-nbd:00112233445566aa:1'), 'utf8')).toBe(
      propertiesText(NAME),
    );
    expect(announced).toEqual(['/sys/block/nbd3/uevent change']);
  });

  it('the names move to a device with another index', async () => {
    await publishNames(addon, NAME, paths);
    await publishNames(addon, { ...NAME, index: 5 }, paths);
    expect(await readlink(linkPath(NAME, paths))).toBe('/dev/nbd5');
  });

  it('the names are removed without a trace, and those of other LUNs stay', async () => {
    await publishNames(addon, NAME, paths);
    await publishNames(addon, SECOND, paths);
    await withdrawNames(addon, NAME, paths);
    expect(await readdir(join(root, 'dev/iqn.2024-01.com.example:disk1'))).toEqual(['lun2']);
    expect(await readdir(join(root, 'run/devices'))).toEqual([SECOND.identifier]);
    await withdrawNames(addon, SECOND, paths);
    await withdrawNames(addon, SECOND, paths);
    expect(await readdir(root)).toEqual(['run']);
  });

  it('two targets never have one name, whatever the characters that a name cannot have', () => {
    const long = `iqn.2024-01.com.example:${'x'.repeat(199)}`;
    const targetNames = [
      ...['iqn.2024-01.com.example:d\u00efsk', 'iqn.2024-01.com.example:d\u00f5sk'],
      ...['iqn.2024-01.com.example:d_sk', `${long}1`, `${long}2`],
    ];
    const all = targetNames.map((targetName) => ({ ...NAME, targetName }));
    expect(new Set(all.map((name) => linkPath(name, paths))).size).toBe(all.length);
    expect(new Set(all.map(propertiesText)).size).toBe(all.length);
  });

  it('a device that goes leaves the link to the one that has the name now', async () => {
    const later = { ...NAME, index: 5, identifier: 'iscsi-nbd:ffeeddccbbaa9988:1' };
    await publishNames(addon, NAME, paths);
    await publishNames(addon, later, paths);
    await withdrawNames(addon, NAME, paths);
    expect(await readlink(linkPath(later, paths))).toBe('/dev/nbd5');
    await withdrawNames(addon, later, paths);
    expect(await readdir(root)).toEqual(['run']);
  });

  it('the names have the form that udev uses for iSCSI disks', () => {
    expect(propertiesText(NAME).split('\n')).toEqual([
      'ID_PATH=ip-192.0.2.7:3260-iscsi-iqn.2024-01.com.example:disk1-lun-1',
      'ID_BUS=iscsi',
      'ID_VENDOR=LIO-ORG_',
      'ID_MODEL=disk_one',
      'ID_SCSI_SERIAL=ab_c',
      'ID_WWN=0x6001405aabbccdd00112233445566778',
      'ISCSI_NBD_ID=naa.6001405aabbccdd00112233445566778',
      '',
    ]);
  });

  it('a disk with several paths has a name for each portal, and the rule a line for each name', async () => {
    const portals = Array.from({ length: 10 }, (_, at) => ({
      host: `192.0.2.${at + 7}`,
      port: 3260,
      targetName: NAME.targetName,
      lun: NAME.lun,
    }));
    const lines = propertiesText({ ...NAME, otherPlaces: [...portals, ...portals] }).split('\n');
    const path = (host: string) => `ip-${host}:3260-iscsi-iqn.2024-01.com.example:disk1-lun-1`;
    const names = lines.filter((line) => line.includes('PATH'));
    expect(names.slice(0, 3)).toEqual([
      `ID_PATH=${path('192.0.2.7')}`,
      `ISCSI_NBD_PATH_2=${path('192.0.2.8')}`,
      `ISCSI_NBD_PATH_3=${path('192.0.2.9')}`,
    ]);
    expect(names.length).toBe(8);
    const rule = await readFile('packaging/udev/60-iscsi-nbd.rules', 'utf8');
    for (const name of names) {
      const property = name.split('=')[0];
      expect(rule).toContain(`SYMLINK+="disk/by-path/$env{${property}}"`);
      expect(rule).toContain(`SYMLINK+="disk/by-path/$env{${property}}-part%n"`);
    }
  });

  it('a path over another target has the name of that target and its LUN there', () => {
    const other = {
      host: '192.0.2.7',
      port: 3260,
      targetName: 'iqn.2024-01.com.example:b',
      lun: 5,
    };
    const lines = propertiesText({ ...NAME, otherPlaces: [other] }).split('\n');
    expect(lines).toContain(
      'ISCSI_NBD_PATH_2=ip-192.0.2.7:3260-iscsi-iqn.2024-01.com.example:b-lun-5',
    );
  });

  it('the names stay in their folder whatever the target name and identifiers are', () => {
    const hostile = { ...NAME, targetName: '../../etc\n', identifiers: ['a\nID_PATH=x/../y'] };
    expect(linkPath(hostile, paths)).toMatch(/\/dev\/\.\._\.\._etc__[0-9a-f]{8}\/lun1$/);
    const dots = linkPath({ ...NAME, targetName: '..' }, paths);
    expect(dots).toMatch(/\/dev\/__[0-9a-f]{8}\/lun1$/);
    expect(propertiesText(hostile)).toContain('ISCSI_NBD_ID=a_ID_PATH=x_.._y\n');
  });
});
