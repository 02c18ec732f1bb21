import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProductError, UsageError } from '../../../src/base/errors.js';
import { KEY_ROWS } from '../../../src/iscsi/login/negotiation-keys.js';
import { accept, OFFER, operational, TGT_ANSWER } from './login-script.js';

const section = (number: string) => expect.objectContaining({ section: number });

/** The answers of tgt with those of `lines` in place of its own. */
function answers(...lines: string[]): string[] {
  const keys = lines.map((line) => line.split('=')[0]);
  return [...TGT_ANSWER.filter((line) => !keys.includes(line.split('=')[0])), ...lines];
}

/** The quirks of a login that ends with these answers, beside what it settles. */
function oddLogin(options: Parameters<typeof operational>[0], ...lines: string[]) {
  const script = operational(options);
  const { parameters } = script.done(accept(answers(...lines)));
  return { parameters, quirks: script.quirks };
}

const login = (...lines: string[]) => operational().done(accept(answers(...lines)));
const offer = (changes: Partial<typeof OFFER>) => ({ offer: { ...OFFER, ...changes } });

/** What we answer to proposals of the target, sent without the T bit. */
function answersTo(...lines: string[]): string[] {
  const script = operational();
  script.answer({ lines });
  return script.lines;
}

describe('RFC 7143 §13 (Login/Text Operational Text Keys)', () => {
  // Name, section, default and result function as printed in the RFC.
  it.each([
    ['HeaderDigest', '13.1', 'None', 'list'],
    ['DataDigest', '13.1', 'None', 'list'],
    ['MaxConnections', '13.2', '1', 'min', 1, 65535],
    ['InitialR2T', '13.10', 'Yes', 'or'],
    ['ImmediateData', '13.11', 'Yes', 'and'],
    ['MaxRecvDataSegmentLength', '13.12', '8192', 'declaredNumber', 512, 16777215],
    ['MaxBurstLength', '13.13', '262144', 'min', 512, 16777215],
    ['FirstBurstLength', '13.14', '65536', 'min', 512, 16777215],
    ['DefaultTime2Wait', '13.15', '2', 'max', 0, 3600],
    ['DefaultTime2Retain', '13.16', '20', 'min', 0, 3600],
    ['MaxOutstandingR2T', '13.17', '1', 'min', 1, 65535],
    ['DataPDUInOrder', '13.18', 'Yes', 'or'],
    ['DataSequenceInOrder', '13.19', 'Yes', 'or'],
    ['ErrorRecoveryLevel', '13.20', '0', 'min', 0, 2],
    ['TaskReporting', '13.23', 'RFC3720', 'list'],
  ])(
    'the row of %s is that of §%s',
    (key, number, defaultValue, result, min?: number, max?: number) => {
      const row = KEY_ROWS.get(key);
      expect(row).toMatchObject({ section: number, defaultValue });
      const rule = row?.rule as Record<string, unknown>;
      expect(rule['choose'] ?? rule['kind']).toBe(result);
      if (min !== undefined) expect(rule).toMatchObject({ min, max });
    },
  );
});

describe('RFC 7143 §6.2.1 (List Negotiations)', () => {
  it('the target selects one of the offered values', () => {
    expect(login('HeaderDigest=CRC32C').parameters.headerDigest).toBe('CRC32C');
    expect(() => login('DataDigest=CRC32C')).toThrow(section('13.1'));
    expect(() => login('HeaderDigest=CRC32C,None')).toThrow(section('13.1'));
    expect(() => login('HeaderDigest=crc32c')).toThrow(section('13.1'));
  });

  it('a digest that is required and refused ends the login, as does silence about it', () => {
    const required = offer({ dataDigest: ['CRC32C'] });
    const code = expect.objectContaining({ code: 'ERR_DIGEST_REFUSED' });
    const refused = () => operational(required).answer(accept(answers('DataDigest=Reject')));
    expect(refused).toThrow(UsageError);
    expect(refused).toThrow(code);
    const silent = TGT_ANSWER.filter((line) => !line.startsWith('DataDigest'));
    expect(() => operational(required).answer(accept(silent))).toThrow(code);
  });

  it('the refusal of a required digest names the option that goes without it', () => {
    for (const [key, option] of [
      ['HeaderDigest', '--header-digest'],
      ['DataDigest', '--data-digest'],
    ]) {
      const required = offer({ headerDigest: ['CRC32C'], dataDigest: ['CRC32C'] });
      const other = key === 'HeaderDigest' ? 'DataDigest=CRC32C' : 'HeaderDigest=CRC32C';
      const refused = () => operational(required).answer(accept(answers(`${key}=None`, other)));
      expect(refused).toThrow(expect.objectContaining({ code: 'ERR_DIGEST_REFUSED' }));
      expect(refused).toThrow(new RegExp(`${option} CRC32C,None`));
    }
  });
});

describe('RFC 7143 §6.2.2 (Simple-Value Negotiations)', () => {
  it.each([
    ['MaxBurstLength', '262144', '262145', '262144'],
    ['MaxBurstLength', '262144', '16777216', '262144'],
    ['FirstBurstLength', '512', '65537', '65536'],
    ['MaxOutstandingR2T', '4', '5', '4'],
    ['MaxOutstandingR2T', '1', '0', '1'],
    ['MaxConnections', '1', '2', '1'],
    ['DefaultTime2Wait', '3600', '3601', '3600'],
  ])('the key %s may be %s, and %s counts as %s (libiscsi clamps too)', (key, good, bad, used) => {
    const inForce = (value: string) => login(`${key}=${value}`).keys.find((row) => row.key === key);
    expect(inForce(good)).toMatchObject({ inForce: good });
    expect(inForce(bad)).toMatchObject({ inForce: used });
    const { quirks } = oddLogin({}, `${key}=${bad}`);
    expect(quirks).toMatchObject([
      { quirk: 'reply-clamped', section: KEY_ROWS.get(key)?.section, what: expect.any(String) },
    ]);
  });

  it('the result of a maximum is not below the offer', () => {
    const { parameters, quirks } = oddLogin(offer({ defaultTime2Wait: 3 }));
    expect(parameters.defaultTime2Wait).toBe(3);
    expect(quirks).toMatchObject([{ quirk: 'reply-clamped', section: '13.15' }]);
  });

  it.each(['1', '2', '3'])(
    'a target that insists on ErrorRecoveryLevel %s ends the login',
    (level) => {
      expect(() => login(`ErrorRecoveryLevel=${level}`)).toThrow(section('13.20'));
    },
  );

  it.each(['', 'x', '511', '0', '08192', '4096~8192', '4096,8192'])(
    'the value MaxBurstLength=%s is not admissible',
    (value) => expect(() => login(`MaxBurstLength=${value}`)).toThrow(section('13.13')),
  );

  it('a number may come in hexadecimal', () => {
    expect(login('MaxBurstLength=0x1000', 'FirstBurstLength=0x400').parameters).toMatchObject({
      maxBurstLength: 4096,
      firstBurstLength: 1024,
    });
  });

  it('data out of order, and what is neither Yes nor No, end the login', () => {
    expect(() => login('DataPDUInOrder=No')).toThrow(section('13.18'));
    expect(() => login('DataSequenceInOrder=No')).toThrow(section('13.19'));
    expect(() => login('InitialR2T=yes')).toThrow(section('13.10'));
  });

  it('a target that contradicts what decides alone gets what was offered (libiscsi clamps too)', () => {
    const none = oddLogin(offer({ immediateData: false }), 'ImmediateData=Yes');
    expect(none.parameters.immediateData).toBe(false);
    expect(none.quirks).toMatchObject([{ quirk: 'reply-clamped', section: '13.11' }]);
    const asked = oddLogin(offer({ initialR2T: true }), 'InitialR2T=No');
    expect(asked.parameters.initialR2T).toBe(true);
  });

  it('a value that decides alone needs no answer, and silence about it causes no warning', () => {
    const lines = TGT_ANSWER.filter((line) => !/InOrder/.test(line));
    const step = operational().done(accept(lines));
    expect(step.parameters).toMatchObject({ dataPduInOrder: true, dataSequenceInOrder: true });
    expect(step.warnings).toEqual([]);
  });

  it('silence about other keys leaves the default in force, with a warning', () => {
    const lines = TGT_ANSWER.filter((line) => !/InitialR2T|MaxOutstanding/.test(line));
    const step = operational().done(accept(lines));
    expect(step.parameters).toMatchObject({ initialR2T: true, maxOutstandingR2T: 1 });
    expect(step.warnings).toHaveLength(2);
  });
});

describe('RFC 7143 §6.2 (Text Mode Negotiation)', () => {
  it('Reject and Irrelevant leave the default in force', () => {
    const step = login('MaxBurstLength=Reject', 'FirstBurstLength=Irrelevant');
    expect(step.parameters).toMatchObject({ maxBurstLength: 262144, firstBurstLength: 65536 });
  });

  it('a target that does not understand a key gets the more cautious of default and offer', () => {
    const odd = (offered: Partial<typeof OFFER>, line: string) => oddLogin(offer(offered), line);
    const small = odd({ maxBurstLength: 131072 }, 'MaxBurstLength=NotUnderstood');
    expect(small.parameters.maxBurstLength).toBe(131072);
    expect(small.quirks).toMatchObject([{ quirk: 'key-not-understood', section: '6.2' }]);
    const large = odd({ maxBurstLength: 1 << 20 }, 'MaxBurstLength=Reject');
    expect(large.parameters.maxBurstLength).toBe(262144);
    const asked = odd({ initialR2T: false }, 'InitialR2T=NotUnderstood');
    expect(asked.parameters.initialR2T).toBe(true);
    const none = odd({ immediateData: false }, 'ImmediateData=Reject');
    expect(none.parameters.immediateData).toBe(false);
  });

  it('a target that answers a declaration with a reserved word is logged in to', () => {
    const alias = oddLogin({ initiatorAlias: 'host' }, 'InitiatorAlias=NotUnderstood');
    expect(alias.quirks).toMatchObject([{ quirk: 'declaration-answered', section: '6.2' }]);
    const length = oddLogin({}, 'MaxRecvDataSegmentLength=Reject');
    expect(length.parameters.targetMaxRecvDataSegmentLength).toBe(8192);
  });

  it('NotUnderstood for a later key leaves its default in force', () => {
    const reporting = offer({ taskReporting: ['FastAbort', 'ResponseFence', 'RFC3720'] });
    const understood = operational(reporting).done(accept(answers('TaskReporting=FastAbort')));
    expect(understood.parameters.taskReporting).toBe('FastAbort');
    const not = operational(reporting).done(accept(answers('TaskReporting=NotUnderstood')));
    expect(not.parameters.taskReporting).toBe('RFC3720');
  });

  it.each(['Reject', 'Irrelevant', 'NotUnderstood'])(
    'a target that proposes %s, an answer to nothing, is logged in to',
    (word) => {
      for (const key of ['TaskReporting', 'X-com.example.a']) {
        const script = operational();
        script.answer({ lines: [`${key}=${word}`] });
        expect(script.lines).toEqual([]);
        script.done(accept());
        expect(script.quirks).toMatchObject([{ quirk: 'reserved-proposed', section: '6.2' }]);
      }
    },
  );

  it('an unknown key is answered with NotUnderstood', () => {
    expect(answersTo('X-com.example.a=1', 'MaxOutstandingUnexpectedPDUs=0')).toEqual([
      'X-com.example.a=NotUnderstood',
      'MaxOutstandingUnexpectedPDUs=NotUnderstood',
    ]);
  });

  it('proposals of the target get the result of the key', () => {
    expect(answersTo('iSCSIProtocolLevel=2')).toEqual(['iSCSIProtocolLevel=1']);
    expect(answersTo('TaskReporting=FastAbort,RFC3720')).toEqual(['TaskReporting=RFC3720']);
    expect(answersTo('TaskReporting=FastAbort')).toEqual(['TaskReporting=Reject']);
    const script = operational(offer({ initialR2T: true, immediateData: false }));
    script.answer({ lines: ['FirstBurstLength=511'] });
    expect(script.lines).toEqual(['FirstBurstLength=Reject']);
  });

  it('keys without a use in a discovery session are answered with Irrelevant', () => {
    const script = operational({ sessionType: 'Discovery' });
    script.answer({ lines: ['MaxBurstLength=4096', 'InitialR2T=Yes'] });
    expect(script.lines).toEqual(['MaxBurstLength=Irrelevant', 'InitialR2T=Irrelevant']);
  });
});

describe('RFC 7143 §13: keys with a rule of their own', () => {
  it('§13.12 (MaxRecvDataSegmentLength): each side declares its own', () => {
    expect(login('MaxRecvDataSegmentLength=16777215').parameters).toMatchObject({
      initiatorMaxRecvDataSegmentLength: 262144,
      targetMaxRecvDataSegmentLength: 16777215,
    });
  });

  it.each(['511', 'x', '-1', ''])('the value MaxRecvDataSegmentLength=%s is rejected', (value) => {
    expect(() => login(`MaxRecvDataSegmentLength=${value}`)).toThrow(section('13.12'));
  });

  it('be2iscsi meets targets with MaxRecvDataSegmentLength=0: the default holds', () => {
    const zero = oddLogin({}, 'MaxRecvDataSegmentLength=0');
    expect(zero.parameters.targetMaxRecvDataSegmentLength).toBe(8192);
    expect(zero.quirks).toMatchObject([{ quirk: 'reply-clamped', section: '13.12' }]);
    const huge = oddLogin({}, 'MaxRecvDataSegmentLength=16777216');
    expect(huge.parameters.targetMaxRecvDataSegmentLength).toBe(16777215);
  });

  it('§13.14 (FirstBurstLength): of a FirstBurstLength above MaxBurstLength the smaller is used', () => {
    const { parameters, quirks } = oddLogin({}, 'MaxBurstLength=4096');
    expect(parameters).toMatchObject({ maxBurstLength: 4096, firstBurstLength: 4096 });
    expect(quirks).toMatchObject([{ quirk: 'burst-order', section: '13.14' }]);
    const lines = ['MaxBurstLength=4096', 'FirstBurstLength=Reject'];
    expect(login(...lines).parameters.firstBurstLength).toBe(4096);
  });

  it('§13.19 (DataSequenceInOrder): recovery levels above 0 allow one R2T', () => {
    expect(operational(offer({ errorRecoveryLevel: 1 })).lines).toContain('MaxOutstandingR2T=1');
    expect(operational().lines).toContain('MaxOutstandingR2T=4');
  });

  it.each(['InitiatorName=iqn.2001-04.com.example', 'TargetName=a', 'SessionType=Discovery'])(
    'a target that sends %s in login, which is not ours, ends the login',
    (line) => expect(() => login(line)).toThrow(ProductError),
  );

  it('a target that repeats the names of the login is logged in to', () => {
    const ours = ['TargetName=iqn.1999-07.com.example:diskarray.sn.88', 'SessionType=Normal'];
    expect(oddLogin({}, ...ours).quirks).toMatchObject([{ quirk: 'key-of-initiators' }]);
  });

  it('§13.3 (SendTargets): SendTargets during login ends the login', () => {
    const refused = expect.objectContaining({ section: '13.3', rule: 'key-in-login' });
    expect(() => login('SendTargets=All')).toThrow(refused);
  });

  it('§13.25 (Obsoleted Keys): the marker keys are answered with Reject', () => {
    const lines = ['IFMarker=No', 'OFMarker=Yes', 'IFMarkInt=1~2', 'OFMarkInt=2048'];
    expect(answersTo(...lines)).toEqual([
      'IFMarker=Reject',
      'OFMarker=Reject',
      'IFMarkInt=Reject',
      'OFMarkInt=Reject',
    ]);
    expect(login('IFMarker=No').warnings).toHaveLength(1);
  });

  it('§13.26 (X#NodeArchitecture): a declaration needs no answer', () => {
    expect(answersTo('X#NodeArchitecture=ExampleOS/v1234')).toEqual([]);
    const { quirks } = oddLogin({}, `X#NodeArchitecture=${'x'.repeat(256)}`);
    expect(quirks).toMatchObject([{ quirk: 'reply-clamped', section: '13.26' }]);
  });
});

describe('hostile answers to a login', () => {
  it('a login ends in values within their ranges or a ProductError, whatever a target answers', () => {
    const value = fc.oneof(
      fc.constantFrom('Yes', 'No', 'None', 'CRC32C', 'Reject', 'Irrelevant', 'NotUnderstood', ''),
      fc.integer({ min: -1, max: 2 ** 25 }).map(String),
      fc.string(),
    );
    const line = fc.tuple(fc.constantFrom(...KEY_ROWS.keys(), 'X-a'), value);
    fc.assert(
      fc.property(fc.array(line, { maxLength: 6 }), fc.boolean(), (pairs, early) => {
        const lines = pairs.map(([key, text]) => `${key}=${text.replaceAll('\0', '')}`);
        const script = operational();
        try {
          if (early) script.answer({ lines });
          const { parameters } = script.done(accept(early ? [] : lines));
          expect(parameters.targetMaxRecvDataSegmentLength).toBeGreaterThanOrEqual(512);
          expect(parameters.targetMaxRecvDataSegmentLength).toBeLessThan(2 ** 24);
          expect(parameters.maxBurstLength).toBeGreaterThanOrEqual(512);
          expect(parameters.maxBurstLength).toBeLessThanOrEqual(262144);
          expect(parameters.firstBurstLength).toBeLessThanOrEqual(parameters.maxBurstLength);
          expect(['None', 'CRC32C']).toContain(parameters.headerDigest);
        } catch (error) {
          expect(error).toBeInstanceOf(ProductError);
          expect(error).not.toMatchObject({ code: 'ERR_INVARIANT' });
        }
      }),
      { numRuns: 2000 },
    );
  });
});
