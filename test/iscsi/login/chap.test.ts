import { describe, expect, it } from 'vitest';
import { ProtocolError, UsageError } from '../../../src/base/errors.js';
import {
  AuthenticationError,
  ChallengeMemory,
  type ChapAlgorithm,
  ChapExchange,
  type ChapOptions,
  chapResponse,
} from '../../../src/iscsi/login/chap.js';
import { QuirkLog } from '../../../src/iscsi/quirks/quirks.js';

const ALL: ChapAlgorithm[] = ['SHA3-256', 'SHA256', 'SHA1', 'MD5'];
const secret = Buffer.from('alicesecret12345');
const targetSecret = Buffer.from('bobsecret1234567');

/** Bytes of one mutual login to tgt 1.0 with the accounts alice and bob. */
const TGT = {
  challenge:
    '0x0097feccfbba45bbeffa63c9edc00b7c4b1489ad17445f79a23f248583be9a819a7990086a2d1b288c31658261701ffd1d54',
  identifier: '21',
  acceptedResponse: '0x3b04592cb6d5be5c77acbdc553f518a7',
  ourIdentifier: 149,
  ourChallenge: '8a3b568290055f87c19ef5e66ee44226',
  targetResponse: '0x0002ee9265357fc2b3d9dda31746ca71',
};
const tgtRandom = () =>
  Buffer.concat([Buffer.of(TGT.ourIdentifier), Buffer.from(TGT.ourChallenge, 'hex')]);

const keys = (record: Record<string, string>) => new Map(Object.entries(record));
const tgtChallenge = () => keys({ CHAP_A: '5', CHAP_I: TGT.identifier, CHAP_C: TGT.challenge });

function mutual(options: Partial<ChapOptions> = {}): ChapExchange {
  const target = { user: 'bob', secret: targetSecret };
  return new ChapExchange(
    { user: 'alice', secret, target, algorithms: ['MD5'], ...options },
    tgtRandom,
    new QuirkLog(),
  );
}

function oneWay(options: Partial<ChapOptions> = {}, log = new QuirkLog()): ChapExchange {
  const random = () => expect.fail('one-way CHAP needs no random bytes');
  return new ChapExchange({ user: 'alice', secret, algorithms: ALL, ...options }, random, log);
}

function thrown(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return expect.fail('nothing was thrown');
}

describe('RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP))', () => {
  // printf '\x05secret\x01\x02\x03\x04' | openssl dgst -<hash>
  it.each([
    ['MD5', '584b7e61ade04c974f8bf5885a1e2928'],
    ['SHA1', '8eec5cba09c7f5018f89a4b5caabd9dbb19d0f6c'],
    ['SHA256', '7a12f5854d1420a4087451fa7c385e162e46f1df2a040468c45a4221efc18b7f'],
    ['SHA3-256', 'ad5aa7c1dbaf80b6e220d57458ae2177a5c1439a51e209e6ecebadf78cf5fca1'],
  ] as const)('the response with %s hashes identifier, secret and challenge', (name, expected) => {
    const input = {
      identifier: 5,
      secret: Buffer.from('secret'),
      challenge: Buffer.of(1, 2, 3, 4),
    };
    expect(chapResponse(name, input).toString('hex')).toBe(expected);
  });

  it('algorithms are offered by number in the order of the operator', () => {
    expect(oneWay().firstPairs()).toEqual([['CHAP_A', '8,7,6,5']]);
    expect(oneWay({ algorithms: ['MD5', 'SHA1'] }).firstPairs()).toEqual([['CHAP_A', '5,6']]);
  });

  it('the response to a challenge of tgt is the one that tgt accepts', () => {
    expect(oneWay().challenged(tgtChallenge())).toEqual([
      ['CHAP_N', 'alice'],
      ['CHAP_R', TGT.acceptedResponse],
    ]);
  });

  it('a challenge may be base64', () => {
    const base64 = `0b${Buffer.from(TGT.challenge.slice(2), 'hex').toString('base64')}`;
    const pairs = oneWay().challenged(tgtChallenge().set('CHAP_C', base64));
    expect(pairs).toContainEqual(['CHAP_R', TGT.acceptedResponse]);
  });

  it('the response of tgt to our own challenge authenticates it', () => {
    const exchange = mutual();
    expect(exchange.challenged(tgtChallenge())).toEqual([
      ['CHAP_N', 'alice'],
      ['CHAP_R', TGT.acceptedResponse],
      ['CHAP_I', '149'],
      ['CHAP_C', `0x${TGT.ourChallenge}`],
    ]);
    exchange.finished(keys({ CHAP_N: 'bob', CHAP_R: TGT.targetResponse }));
  });

  it.each([
    ['targetNotAuthentic', { CHAP_N: 'bob', CHAP_R: '0x1002ee9265357fc2b3d9dda31746ca71' }],
    ['targetNotAuthentic', { CHAP_N: 'bob', CHAP_R: '0x02ee9265357fc2b3d9dda31746ca71' }],
    ['targetNotAuthentic', { CHAP_N: 'bob', CHAP_R: `${TGT.targetResponse}00` }],
    ['targetNotAuthentic', { CHAP_N: 'bob', CHAP_R: '0x00' }],
    ['targetUser', { CHAP_N: 'eve', CHAP_R: TGT.targetResponse }],
    ['targetUser', { CHAP_N: 'alice', CHAP_R: TGT.targetResponse }],
    ['targetNotAuthenticated', {}],
  ] as const)('a target that fails is %s', (fault, answer) => {
    const exchange = mutual();
    exchange.challenged(tgtChallenge());
    const error = thrown(() => exchange.finished(keys(answer)));
    expect(error).toBeInstanceOf(AuthenticationError);
    expect(error).toMatchObject({ fault, code: 'ERR_AUTHENTICATION' });
    expect(String(error)).not.toMatch(/0002ee|alicesecret|bobsecret/);
  });

  it('a challenge with no byte or with more than 1024 bytes is rejected', () => {
    const challenge = (length: number) => tgtChallenge().set('CHAP_C', `0x${'ab'.repeat(length)}`);
    expect(oneWay().challenged(challenge(1))).toHaveLength(2);
    expect(oneWay().challenged(challenge(1024))).toHaveLength(2);
    expect(() => oneWay().challenged(challenge(1025))).toThrow(ProtocolError);
    expect(() => oneWay().challenged(challenge(0))).toThrow(ProtocolError);
  });

  it.each(['6', '0', '256', '-5', '5,7', 'MD5', ''])(
    'the algorithm CHAP_A=%j, which was not offered, is a protocol error',
    (algorithm) => {
      const exchange = oneWay({ algorithms: ['SHA256', 'MD5'] });
      const keys = tgtChallenge().set('CHAP_A', algorithm);
      expect(() => exchange.challenged(keys)).toThrow(ProtocolError);
    },
  );

  it('a response of a target with no byte or with more than 1024 bytes is a protocol error', () => {
    for (const length of [0, 1025]) {
      const exchange = mutual();
      exchange.challenged(tgtChallenge());
      const answer = keys({ CHAP_N: 'bob', CHAP_R: `0x${'ab'.repeat(length)}` });
      expect(() => exchange.finished(answer)).toThrow(ProtocolError);
    }
  });

  it('a name of one byte and one of 255 bytes are sent, and one of 256 bytes is rejected', () => {
    for (const user of ['a', 'a'.repeat(255)]) {
      expect(oneWay({ user }).challenged(tgtChallenge())).toContainEqual(['CHAP_N', user]);
    }
    expect(() => oneWay({ user: 'a'.repeat(256) })).toThrow(UsageError);
  });

  it.each(['256', '-1', ''])('the identifier CHAP_I=%j is rejected', (identifier) => {
    expect(() => oneWay().challenged(tgtChallenge().set('CHAP_I', identifier))).toThrow(
      ProtocolError,
    );
  });

  it('an operator that leaves MD5 out gets a warning', () => {
    expect(oneWay({ algorithms: ['SHA256'] }).warnings).toHaveLength(1);
    expect(oneWay().warnings).toEqual([]);
  });
});

describe('RFC 7143 §9.2 (In-Band Initiator-Target Authentication)', () => {
  it.each(['CHAP_A', 'CHAP_I', 'CHAP_C'])('a step without %s ends the login', (key) => {
    const incomplete = tgtChallenge();
    incomplete.delete(key);
    expect(() => oneWay().challenged(incomplete)).toThrow(ProtocolError);
  });

  it('a key of another step ends the login', () => {
    expect(() => oneWay().challenged(tgtChallenge().set('CHAP_X', '1'))).toThrow(ProtocolError);
    expect(() => mutual().challenged(tgtChallenge().set('CHAP_N', 'bob'))).toThrow(ProtocolError);
    const exchange = oneWay();
    exchange.challenged(tgtChallenge());
    expect(() => exchange.finished(keys({ CHAP_A: '5' }))).toThrow(ProtocolError);
    expect(() => exchange.finished(keys({ AuthMethod: 'None' }))).toThrow(ProtocolError);
  });

  it('a target that names the method again, or proves itself unasked, is authenticated to', () => {
    const log = new QuirkLog();
    const exchange = oneWay({}, log);
    const again = exchange.challenged(tgtChallenge().set('AuthMethod', 'CHAP'));
    expect(again).toEqual(oneWay().challenged(tgtChallenge()));
    exchange.finished(keys({ CHAP_N: 'bob', CHAP_R: '0x00' }));
    expect(log.all).toMatchObject([{ quirk: 'chap-extra-key', section: '12.1.3' }]);
  });

  it('a target that only names the method again has not proved itself', () => {
    const exchange = mutual();
    exchange.challenged(tgtChallenge());
    expect(thrown(() => exchange.finished(keys({ AuthMethod: 'CHAP' })))).toMatchObject({
      fault: 'targetNotAuthenticated',
    });
  });
});

describe('RFC 7143 §9.2.1 (CHAP Considerations)', () => {
  it('a secret that is configured for both directions is rejected', () => {
    const error = thrown(() => mutual({ target: { secret: Buffer.from(secret) } }));
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ code: 'ERR_CHAP_SAME_SECRET' });
  });

  it('a target that responds with the secret of the initiator fails', () => {
    const exchange = mutual();
    exchange.challenged(tgtChallenge());
    // printf '\x95alicesecret12345' and the challenge of ours | openssl dgst -md5
    const answer = keys({ CHAP_N: 'bob', CHAP_R: '0xddfcb197ecb4825f6fbc729eb19bcd54' });
    expect(thrown(() => exchange.finished(answer))).toMatchObject({ fault: 'sameSecret' });
  });

  it('a challenge of ours that comes back on another connection is rejected as a reflection', () => {
    const memory = new ChallengeMemory();
    mutual({ memory }).challenged(tgtChallenge());
    const reflected = tgtChallenge().set('CHAP_C', `0x${TGT.ourChallenge}`);
    const error = thrown(() => mutual({ memory }).challenged(reflected));
    expect(error).toMatchObject({ fault: 'reflectedChallenge' });
  });

  it('a challenge that the target uses twice is rejected', () => {
    const memory = new ChallengeMemory();
    oneWay({ memory }).challenged(tgtChallenge());
    const error = thrown(() => oneWay({ memory }).challenged(tgtChallenge()));
    expect(error).toMatchObject({ fault: 'reusedChallenge' });
  });

  it('our identifier differs from that of the target', () => {
    const pairs = new Map(mutual().challenged(tgtChallenge().set('CHAP_I', '149')));
    expect(pairs.get('CHAP_I')).toBe('150');
  });

  it('a secret below 96 bits is a warning in each direction', () => {
    expect(oneWay({ secret: Buffer.alloc(11, 1) }).warnings).toHaveLength(1);
    expect(oneWay({ secret: Buffer.alloc(12, 1) }).warnings).toEqual([]);
    expect(mutual({ target: { secret: Buffer.from('short') } }).warnings).toHaveLength(1);
  });

  it('empty secrets and user names are rejected', () => {
    expect(() => oneWay({ secret: Buffer.alloc(0) })).toThrow(UsageError);
    expect(() => oneWay({ user: '' })).toThrow(UsageError);
    expect(() => oneWay({ algorithms: [] })).toThrow(UsageError);
  });
});
