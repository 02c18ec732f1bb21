import { describe, expect, it } from 'vitest';
import { formatPortal, readPortal } from '../../../src/iscsi/login/portal.js';

describe('RFC 7143 §13.8 (TargetAddress)', () => {
  it.each([
    ['10.0.0.1:5003,1', { host: '10.0.0.1', port: 5003, portalGroupTag: 1 }],
    [
      '[1080:0:0:0:8:800:200C:417A],65',
      { host: '1080:0:0:0:8:800:200C:417A', port: 3260, portalGroupTag: 65 },
    ],
    [
      '[1080::8:800:200C:417A]:5003,1',
      { host: '1080::8:800:200C:417A', port: 5003, portalGroupTag: 1 },
    ],
    [
      'computingcenter.example.com,23',
      { host: 'computingcenter.example.com', port: 3260, portalGroupTag: 23 },
    ],
  ])('the example %s of the RFC is read', (text, portal) => {
    expect(readPortal(text)).toEqual(portal);
  });

  it('the default port is 3260, and there is no default tag', () => {
    expect(readPortal('host')).toEqual({ host: 'host', port: 3260 });
    expect(readPortal('[::1]')).toEqual({ host: '::1', port: 3260 });
  });

  it.each(['fe80::1', 'fe80::1%eth0', '::ffff:192.0.2.1', '::'])(
    'IPv6 without brackets is accepted without a port: %s',
    (host) => expect(readPortal(host)).toEqual({ host, port: 3260 }),
  );

  it.each([
    '',
    ',1',
    ':3260',
    'host:',
    'host:0',
    'host:65536',
    'host:x',
    'host:03260',
    'host,65536',
    'host,',
    'host,1,2',
    'a:1:2',
    '[::1',
    '[::1]x',
    '[host]:1',
    '[1:2]',
    '[1::2::3]',
    '[1:2:3:4:5:6:7:8:9]',
    '[::1.2.3.256]',
    '[12345::]',
    'ho st',
    'ho/st',
    'a..b',
    '-a',
    `${'a'.repeat(254)}`,
    'host\n',
  ])('the address %j is rejected in words', (text) => {
    expect(readPortal(text)).toHaveProperty('fault');
  });

  it('an address is written with brackets around IPv6', () => {
    expect(formatPortal({ host: '::1', port: 3260 })).toBe('[::1]:3260');
    expect(formatPortal({ host: 'a', port: 1, portalGroupTag: 0 })).toBe('a:1,0');
  });
});
