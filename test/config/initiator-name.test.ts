import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resolveInitiatorName, stateDirectoryOf } from '../../src/config/initiator-name.js';

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'initiator-name-test-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const stateDirectory = () => join(directory, 'state');
const systemPath = () => join(directory, 'initiatorname.iscsi');
const resolve = () =>
  resolveInitiatorName({ stateDirectory: stateDirectory(), systemPath: systemPath() });

describe('the initiator name', () => {
  it('the name is read from the file of the system, where comments are skipped', () => {
    const text =
      '## InitiatorName=iqn.2001-04.com.example:no\nInitiatorName=iqn.2001-04.com.example:h\n';
    writeFileSync(systemPath(), text);
    expect(resolve()).toBe('iqn.2001-04.com.example:h');
  });

  it('the name is generated once, and kept', () => {
    const name = resolve();
    expect(name).toMatch(/^iqn\.\d{4}-\d{2}\.[a-z.-]+:[0-9a-f]{12}$/);
    expect(resolve()).toBe(name);
    expect(readdirSync(stateDirectory())).toEqual(['initiatorname.iscsi']);
    const kept = join(stateDirectory(), 'initiatorname.iscsi');
    expect(readFileSync(kept, 'utf8')).toBe(`InitiatorName=${name}\n`);
    expect(statSync(kept).mode & 0o777).toBe(0o600);
  });

  it('a file that asks open-iscsi to generate a name (GenerateName=yes) leads to a name of our own', () => {
    const text = '## DO NOT EDIT OR REMOVE THIS FILE!\nGenerateName=yes\n';
    writeFileSync(systemPath(), text);
    const name = resolve();
    expect(name).toMatch(/^iqn\.\d{4}-\d{2}\.[a-z.-]+:[0-9a-f]{12}$/);
    expect(resolve()).toBe(name);
    expect(readFileSync(systemPath(), 'utf8')).toBe(text);
  });

  it('an invalid name is an error that names the file', () => {
    writeFileSync(systemPath(), 'InitiatorName=disk\n');
    expect(resolve).toThrow(/initiatorname\.iscsi is not valid: it does not start with iqn/);
    writeFileSync(systemPath(), '# nothing\n');
    expect(resolve).toThrow(/no line InitiatorName=/);
  });

  it('a name that cannot be stored is an error that names --initiator-name', () => {
    writeFileSync(stateDirectory(), 'a file in the way');
    expect(resolve).toThrow(/--initiator-name/);
  });
});

describe('the state directory', () => {
  it('the directory is in /var/lib for root and in the home for other users', () => {
    expect(stateDirectoryOf({}, 0)).toBe('/var/lib/iscsi-nbd');
    expect(stateDirectoryOf({ XDG_STATE_HOME: '/s' }, 1000)).toBe('/s/iscsi-nbd');
    expect(stateDirectoryOf({ HOME: '/home/me' }, 1000)).toBe('/home/me/.local/state/iscsi-nbd');
    expect(stateDirectoryOf({ XDG_STATE_HOME: 'relative', HOME: '/h' }, 1000)).toBe(
      '/h/.local/state/iscsi-nbd',
    );
  });
});
