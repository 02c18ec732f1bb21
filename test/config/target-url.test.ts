import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import {
  formatHostPort,
  formatTargetUrl,
  parsePortalArgument,
  parseTargetUrl,
} from '../../src/config/target-url.js';

const NAME = 'iqn.2001-04.com.example:disk1';

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as UsageError).message;
  }
  throw new Error('nothing was thrown');
}

describe('a target URL', () => {
  it('a target URL has host, target name and LUN; the port is 3260 by default', () => {
    expect(parseTargetUrl(`iscsi://192.0.2.1/${NAME}/3`)).toEqual({
      host: '192.0.2.1',
      port: 3260,
      targetName: NAME,
      lun: 3,
    });
  });

  it('a target URL without a LUN means every LUN', () => {
    expect(parseTargetUrl(`iscsi://san.example:860/${NAME}`)).toMatchObject({
      host: 'san.example',
      port: 860,
      lun: null,
    });
  });

  it('an IPv6 address stands in brackets, also with a zone', () => {
    expect(parseTargetUrl(`iscsi://[2001:db8::1]:3261/${NAME}/0`)).toMatchObject({
      host: '2001:db8::1',
      port: 3261,
    });
    expect(parseTargetUrl(`iscsi://me@[fe80::1%eth0]/${NAME}`)).toMatchObject({
      host: 'fe80::1%eth0',
      user: 'me',
    });
  });

  it("the user%password@ of libiscsi is read, and the password may hold '@', '%' and ':'", () => {
    const url = parseTargetUrl(`iscsi://me%p@ss%w:rd@192.0.2.1/${NAME}/1`);
    expect(url).toMatchObject({ user: 'me', password: 'p@ss%w:rd', host: '192.0.2.1' });
  });

  it("a password may hold '/'", () => {
    const url = parseTargetUrl(`iscsi://me%p/w@192.0.2.1/${NAME}/1`);
    expect(url).toMatchObject({ user: 'me', password: 'p/w', host: '192.0.2.1', lun: 1 });
    expect(parsePortalArgument('iscsi://me%p/w@h/')).toMatchObject({ password: 'p/w', host: 'h' });
  });

  it('an iSCSI name may be the user', () => {
    expect(parseTargetUrl(`iscsi://iqn.2001-04.com.example:me@h/${NAME}`)).toMatchObject({
      user: 'iqn.2001-04.com.example:me',
    });
  });

  it('the target name keeps its case', () => {
    const name = 'iqn.2001-04.com.example:Disk';
    expect(parseTargetUrl(`iscsi://h/${name}`).targetName).toBe(name);
  });

  it.each([
    [`http://h/${NAME}`, /does not begin with iscsi:\/\//],
    ['iscsi://h', /names no target/],
    ['iscsi://h/', /names no target/],
    ['iscsi://h/disk1', /does not start with iqn\., eui\. or naa\./],
    [`iscsi:///${NAME}`, /host is missing/],
    [`iscsi://h:0/${NAME}`, /port .*0.* is not a number from 1 to 65535/],
    [`iscsi://h:65536/${NAME}`, /is not a number from 1 to 65535/],
    [`iscsi://h:12x/${NAME}`, /is not a number from 1 to 65535/],
    [`iscsi://[::1/${NAME}`, /bracketed IPv6/],
    [`iscsi://2001:db8::1:x/${NAME}`, /needs brackets/],
    [`iscsi://h,1/${NAME}`, /portal group tag/],
    [`iscsi://h/${NAME}/`, /LUN after the last '\/' is missing/],
    [`iscsi://h/${NAME}/-1`, /LUN '-1' is not a number from 0 to 16777215/],
    [`iscsi://h/${NAME}/16777216`, /LUN '16777216' is not a number/],
    [`iscsi://h/${NAME}/1/2`, /more than a target name and a LUN/],
    [`iscsi://h/${NAME}?target_user=x`, /'\?' has no meaning/],
    [`iscsi://@h/${NAME}`, /user before '@' is empty/],
    [`iscsi://me%@h/${NAME}`, /password after '%' is empty/],
    [`iscsi://h/${NAME} /1`, /blank or control character/],
    [`iscsi://${'h'.repeat(4000)}/${NAME}`, /4\d+ characters/],
  ])('a malformed target URL is rejected with the wrong part: %s', (text, pattern) => {
    expect(messageOf(() => parseTargetUrl(text))).toMatch(pattern);
  });

  it('a password is never shown, neither as text nor in an error', () => {
    expect(formatTargetUrl(parseTargetUrl(`iscsi://me%hunter2@h/${NAME}/1`))).toBe(
      `iscsi://me@h/${NAME}/1`,
    );
    for (const text of [
      `iscsi://me%hunter2@h:0/${NAME}`,
      `iscsi://m@e%hunter2@h:0/${NAME}`,
      `iscsi://me%hun/hunter2@h:0/${NAME}`,
      `iscsi://me%hunter2/x@h:0/${NAME}`,
      `iscsi://me%hunter2/${NAME}`,
      'iscsi://me%hunter2',
      `iscsi://me:hunter2:x@h/${NAME}`,
      `http://me%hunter2@h/${NAME}`,
      `me%hunter2@h/${NAME}`,
      `iscsi://me%hunter2@h/${NAME}/x`,
    ]) {
      expect(
        messageOf(() => parseTargetUrl(text)),
        text,
      ).not.toContain('hunter2');
    }
  });

  it('any text gives a target URL or a UsageError', () => {
    const piece = fc.constantFrom('iscsi://', '@', '%', ':', '/', '[', ']', ',', NAME, 'h', '::1');
    const text = fc.array(fc.oneof(piece, fc.string())).map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, (candidate) => {
        try {
          parseTargetUrl(candidate);
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
    );
  });
});

describe('a portal argument', () => {
  it.each([
    ['192.0.2.1', { host: '192.0.2.1', port: 3260 }],
    ['san.example:860', { host: 'san.example', port: 860 }],
    ['[2001:db8::1]:3261', { host: '2001:db8::1', port: 3261 }],
    ['192.0.2.1:3260,1', { host: '192.0.2.1', port: 3260, portalGroupTag: 1 }],
    ['iscsi://me@h:1/', { host: 'h', port: 1, user: 'me' }],
  ])('a portal argument yields %s', (text, portal) => {
    expect(parsePortalArgument(text)).toEqual(portal);
  });

  it('a portal argument with a target name is rejected', () => {
    expect(messageOf(() => parsePortalArgument(`iscsi://h/${NAME}`))).toMatch(/no target name/);
  });

  it('a portal is shown with brackets around IPv6 and without the usual port', () => {
    expect(formatHostPort({ host: '::1', port: 3260 })).toBe('[::1]');
    expect(formatHostPort({ host: 'h', port: 1 })).toBe('h:1');
  });
});
