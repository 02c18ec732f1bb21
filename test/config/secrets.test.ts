import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { format, inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/config.js';
import { createLog } from '../../src/config/log.js';
import {
  promptForSecret,
  readSecretFile,
  resolveChap,
  Secret,
  type SecretInputs,
} from '../../src/config/secrets.js';

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'secrets-test-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function file(name: string, text: string, mode = 0o600): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

async function chap(parts: {
  flags?: Record<string, unknown>;
  environment?: Record<string, string>;
  yaml?: string;
  url?: SecretInputs['url'];
  prompt?: (question: string) => Promise<Secret>;
}) {
  const environment = parts.environment ?? {};
  const configPath = file('config.yaml', parts.yaml ?? '');
  const config = await loadConfig({ flags: parts.flags ?? {}, environment, configPath });
  const prompt = parts.prompt === undefined ? {} : { prompt: parts.prompt };
  return resolveChap({ config, environment, url: parts.url ?? {}, ...prompt });
}

describe('a secret', () => {
  it('a secret shows [secret] wherever it is printed', () => {
    const secret = new Secret('hunter2hunter2');
    const shown = [
      `${secret}`,
      JSON.stringify({ secret }),
      inspect({ secret }),
      format('%s', secret),
    ];
    for (const text of shown) {
      expect(text).toContain('[secret]');
      expect(text).not.toContain('hunter2');
    }
    expect(secret.reveal()).toBe('hunter2hunter2');
  });

  it('a secret is kept out of the log under its option names', () => {
    const stream = new PassThrough();
    const log = createLog({ level: 'info', pretty: false, stream });
    log.info({
      chap: { user: 'me', secret: 'hunter2' },
      options: { target: { secret: 'hunter2' } },
    });
    log.info({ options: { chap: { secret: 'hunter2' } }, url: { password: 'hunter2' } });
    expect(String(stream.read())).not.toContain('hunter2');
  });
});

describe('a secret file', () => {
  it('a secret loses one trailing newline, and nothing else', () => {
    expect(readSecretFile(file('a', ' secret \n')).reveal()).toBe(' secret ');
    expect(readSecretFile(file('b', 'secret\r\n')).reveal()).toBe('secret');
    expect(readSecretFile(file('c', 'secret\n\n')).reveal()).toBe('secret\n');
  });

  it.each([0o640, 0o604, 0o620, 0o644, 0o660])('a secret file with mode %o is rejected', (mode) => {
    expect(() => readSecretFile(file('mode', 'secret', mode))).toThrow(/others can get at it/);
  });

  it('a secret file that is empty, too large, missing, or no file is rejected', () => {
    expect(() => readSecretFile(file('empty', '\n'))).toThrow(/it is empty/);
    expect(() => readSecretFile(file('large', 'x'.repeat(1025)))).toThrow(/over 1024 bytes/);
    expect(() => readSecretFile(join(directory, 'missing'))).toThrow(/ENOENT/);
    expect(() => readSecretFile(directory)).toThrow(/not a regular file/);
  });
});

describe('CHAP credentials', () => {
  it('no credentials are used if no user is named', async () => {
    expect(await chap({})).toBeUndefined();
    expect(await chap({ environment: { LIBISCSI_CHAP_PASSWORD: 'x' } })).toBeUndefined();
  });

  it('the secret of the URL takes precedence', async () => {
    const flags = { 'chap-user': 'other', 'chap-secret-file': file('f', 'from file') };
    const url = { user: 'me', password: 'from url' };
    expect(await chap({ flags, url })).toEqual({ user: 'me', secret: 'from url' });
  });

  it('the secret is read from the flag before the environment before the configuration file', async () => {
    const path = file('g', 'from file');
    const environment = { LIBISCSI_CHAP_PASSWORD: 'from environment' };
    const url = { user: 'me' };
    const flags = { 'chap-secret-file': path };
    const yaml = `chapSecretFile: ${path}`;
    expect((await chap({ url, environment, flags }))?.secret).toBe('from file');
    expect((await chap({ url, environment, yaml }))?.secret).toBe('from environment');
    expect((await chap({ url, yaml }))?.secret).toBe('from file');
  });

  it('the secret is read from the systemd credentials, whose mode is not checked', async () => {
    const credentials = join(directory, 'credentials');
    mkdirSync(credentials);
    file('credentials/chap-secret', 'from systemd', 0o440);
    const environment = { CREDENTIALS_DIRECTORY: credentials, LIBISCSI_CHAP_USERNAME: 'me' };
    expect(await chap({ environment })).toEqual({ user: 'me', secret: 'from systemd' });
  });

  it('the user is prompted last', async () => {
    const asked: string[] = [];
    const prompt = async (question: string) => {
      asked.push(question);
      return new Secret('typed');
    };
    expect((await chap({ url: { user: 'me' }, prompt }))?.secret).toBe('typed');
    expect(asked).toEqual(['CHAP secret of me: ']);
    await expect(chap({ url: { user: 'me' } })).rejects.toThrow(/--chap-secret-file/);
  });

  it('the credentials of the target are used together with ours, never alone', async () => {
    const environment = {
      LIBISCSI_CHAP_USERNAME: 'me',
      LIBISCSI_CHAP_PASSWORD: 'mine',
      LIBISCSI_CHAP_TARGET_USERNAME: 'it',
      LIBISCSI_CHAP_TARGET_PASSWORD: 'its',
    };
    expect(await chap({ environment })).toEqual({
      user: 'me',
      secret: 'mine',
      target: { user: 'it', secret: 'its' },
    });
    await expect(chap({ flags: { 'target-chap-user': 'it' } })).rejects.toThrow(/--chap-user/);
    await expect(
      chap({ url: { user: 'me', password: 'x' }, flags: { 'target-chap-user': 'it' } }),
    ).rejects.toThrow(/--target-chap-secret-file/);
  });

  it('a secret file without a user is an error', async () => {
    const flags = { 'chap-secret-file': file('h', 'x') };
    await expect(chap({ flags })).rejects.toThrow(/no user/);
  });
});

describe('promptForSecret', () => {
  it('the prompt shows the question and not the answer', async () => {
    const input = new PassThrough();
    const output = new PassThrough();
    const answer = promptForSecret('Secret: ', { input, output });
    input.write('hunter2\r');
    expect((await answer).reveal()).toBe('hunter2');
    expect(String(output.read())).toBe('Secret: \n');
  });

  it('the prompt rejects an empty answer and the end of the input', async () => {
    const empty = new PassThrough();
    const asked = promptForSecret('', { input: empty, output: new PassThrough() });
    empty.write('\r');
    await expect(asked).rejects.toThrow(/empty/);
    const ended = new PassThrough();
    const unanswered = promptForSecret('', { input: ended, output: new PassThrough() });
    ended.end();
    await expect(unanswered).rejects.toThrow(/no secret was given/);
  });
});
