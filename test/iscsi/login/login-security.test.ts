import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { LoginRefusedError } from '../../../src/base/errors.js';
import { AuthenticationError, type ChapAlgorithm } from '../../../src/iscsi/login/chap.js';
import { accept, LoginScript, NO_SECURITY, TGT_ANSWER } from './login-script.js';

const SECRET = Buffer.from('initiator-secret');
const TARGET_SECRET = Buffer.from('the-target-secret');
const algorithms: ChapAlgorithm[] = ['SHA256', 'MD5'];
const oneWay = { chap: { user: 'alice', secret: SECRET, algorithms } };
const mutual = {
  chap: { ...oneWay.chap, target: { user: 'bob', secret: TARGET_SECRET } },
};
const TAG = 'TargetPortalGroupTag=1';
const CHALLENGE = ['CHAP_A=5', 'CHAP_I=7', 'CHAP_C=0x00112233445566778899aabbccddeeff'];

const section = (number: string) => expect.objectContaining({ section: number });

/** RFC 1994 §4.1 (Challenge and Response), by hand. */
function md5(identifier: number, secret: Buffer, challengeHex: string): string {
  const challenge = Buffer.from(challengeHex, 'hex');
  const bytes = Buffer.concat([Buffer.of(identifier), secret, challenge]);
  return `0x${createHash('md5').update(bytes).digest('hex')}`;
}

function challenged(options: typeof oneWay | typeof mutual): LoginScript {
  const script = new LoginScript(options);
  script.answer({ lines: [TAG, 'AuthMethod=CHAP'] });
  script.answer({ lines: CHALLENGE });
  return script;
}

describe('RFC 7143 §12.1 (AuthMethod)', () => {
  it('one-way CHAP may be waived by the target, and the operator gets a warning', () => {
    const script = new LoginScript(oneWay);
    expect(script.lines).toContain('AuthMethod=CHAP,None');
    expect(script.request.transit).toBe(false);
    script.answer({ lines: [TAG, 'AuthMethod=None'] });
    expect(script.request).toMatchObject({ transit: true, nextStage: 1 });
    script.answer({ transit: true, nextStage: 1 });
    const { warnings, ...done } = script.done(accept());
    expect(done).toMatchObject({ authMethod: 'None', isMutual: false });
    const skipped = /chosen a login without authentication, although CHAP was offered/;
    expect(warnings).toContainEqual(expect.stringMatching(skipped));
  });

  it('mutual CHAP may not be waived: None is not offered and not accepted', () => {
    const script = new LoginScript(mutual);
    expect(script.lines).toContain('AuthMethod=CHAP');
    expect(() => script.answer({ lines: [TAG, 'AuthMethod=None'] })).toThrow(section('6.2.1'));
  });

  it.each(['SRP', 'KRB5', 'chap', 'CHAP,None', ''])(
    'the method AuthMethod=%s, which was not offered, ends the login',
    (method) => {
      expect(() =>
        new LoginScript(oneWay).answer({ lines: [TAG, `AuthMethod=${method}`] }),
      ).toThrow(section('6.2.1'));
    },
  );

  it('CHAP is rejected if only None was offered', () => {
    expect(() => new LoginScript().answer({ lines: [TAG, 'AuthMethod=CHAP'] })).toThrow(
      section('6.2.1'),
    );
  });

  it('Reject means that there is no method in common', () => {
    const answer = { lines: [TAG, 'AuthMethod=Reject'] };
    expect(() => new LoginScript(oneWay).answer(answer)).toThrow(AuthenticationError);
  });

  it('an offer of CHAP that is not answered ends the login', () => {
    expect(() => new LoginScript(oneWay).answer({ lines: [TAG] })).toThrow(section('12.1'));
  });
});

describe('RFC 7143 Appendix B (Login Phase Examples): CHAP', () => {
  it('the initiator is authenticated in three rounds', () => {
    const script = new LoginScript(oneWay);
    script.answer({ lines: [TAG, 'AuthMethod=CHAP'] });
    expect(script.lines).toEqual(['CHAP_A=7,5']);
    expect(script.request).toMatchObject({ currentStage: 0, transit: false });
    script.answer({ lines: CHALLENGE });
    const response = md5(7, SECRET, '00112233445566778899aabbccddeeff');
    expect(script.lines).toEqual(['CHAP_N=alice', `CHAP_R=${response}`]);
    expect(script.request).toMatchObject({ currentStage: 0, nextStage: 1, transit: true });
    script.answer({ transit: true, nextStage: 1 });
    const passed = { authMethod: 'CHAP', isMutual: false, warnings: [] };
    expect(script.done(accept())).toMatchObject(passed);
  });

  it('target and initiator authenticate each other', () => {
    const script = challenged(mutual);
    // Random bytes of the script are all 0x5a, so the identifier is 90.
    const challenge = '5a'.repeat(16);
    expect(script.lines.slice(2)).toEqual(['CHAP_I=90', `CHAP_C=0x${challenge}`]);
    const response = md5(90, TARGET_SECRET, challenge);
    const lines = ['CHAP_N=bob', `CHAP_R=${response}`];
    script.answer({ transit: true, nextStage: 1, lines });
    expect(script.done(accept())).toMatchObject({ authMethod: 'CHAP', isMutual: true });
  });

  it('a target that does not prove itself is not logged in to', () => {
    expect(() => challenged(mutual).answer({ transit: true, nextStage: 1 })).toThrow(
      AuthenticationError,
    );
    const lines = ['CHAP_N=bob', `CHAP_R=0x${'00'.repeat(16)}`];
    expect(() => challenged(mutual).answer({ transit: true, nextStage: 1, lines })).toThrow(
      AuthenticationError,
    );
  });
});

describe('RFC 7143 §12 (iSCSI Security Text Keys and Authentication Methods)', () => {
  it('Cisco sends its keys in the security stage: they are kept and not answered', () => {
    const script = new LoginScript();
    const early = ['X-com.cisco.protocol=draft20', 'MaxBurstLength=8192', 'ImmediateData=No'];
    script.answer({ ...NO_SECURITY, lines: [...(NO_SECURITY.lines ?? []), ...early] });
    expect(script.lines.join()).not.toMatch(/cisco/);
    const lines = TGT_ANSWER.filter((line) => !/MaxBurst|Immediate/.test(line));
    const { parameters } = script.done(accept([...lines, 'ImmediateData=Yes']));
    expect(parameters).toMatchObject({ maxBurstLength: 8192, immediateData: true });
    expect(script.quirks[0]).toMatchObject({ quirk: 'key-in-security', section: '12' });
  });

  it('SendTargets in the security stage ends the login', () => {
    const lines = [...(NO_SECURITY.lines ?? []), 'SendTargets=All'];
    expect(() => new LoginScript().answer({ ...NO_SECURITY, lines })).toThrow(section('13.3'));
  });

  it('names, aliases and addresses are accepted in any stage', () => {
    const script = new LoginScript();
    const lines = [
      ...(NO_SECURITY.lines ?? []),
      'TargetAlias=Bob-s \u001b[2JDisk',
      'TargetAddress=10.0.0.1:3260,1',
      'TargetAddress=10.0.0.2:3260,1',
    ];
    script.answer({ ...NO_SECURITY, lines });
    expect(script.done(accept()).parameters.targetAlias).toBe('Bob-s \ufffd[2JDisk');
  });

  it('security keys after the authentication end the login', () => {
    const script = challenged(oneWay);
    script.answer({});
    expect(() => script.answer({ lines: ['CHAP_N=bob'] })).toThrow(section('12.1'));
  });

  it('a step of CHAP before its algorithm is offered ends the login', () => {
    const refused = expect.objectContaining({ section: '12.1', rule: 'security-key-early' });
    for (const method of ['CHAP', 'None']) {
      const lines = [TAG, `AuthMethod=${method}`, 'CHAP_A=5', 'CHAP_I=1', 'CHAP_C=0x0102'];
      expect(() => new LoginScript(oneWay).answer({ lines })).toThrow(refused);
    }
  });

  it('a security key that comes twice ends the login', () => {
    const lines = [TAG, 'AuthMethod=CHAP', 'AuthMethod=None'];
    expect(() => new LoginScript(oneWay).answer({ lines })).toThrow(section('6.3'));
  });

  it('security keys of the operational stage end the login, unless they say what was settled', () => {
    const script = new LoginScript();
    script.answer(NO_SECURITY);
    script.answer({ lines: ['AuthMethod=None'] });
    expect(script.quirks).toMatchObject([{ quirk: 'security-key-repeated' }]);
    for (const line of ['AuthMethod=CHAP', 'CHAP_N=bob']) {
      expect(() => script.answer({ lines: [line] })).toThrow(section('6.3'));
    }
  });

  it('AuthMethod that is named again when it is settled is no other method', () => {
    const script = challenged(oneWay);
    script.answer({ lines: ['AuthMethod=CHAP', 'AuthMethod=CHAP'] });
    expect(script.request).toMatchObject({ currentStage: 0, transit: true });
    script.answer({ lines: ['AuthMethod=CHAP'] });
    expect(() => script.answer({ lines: ['AuthMethod=None'] })).toThrow(section('12.1'));
  });
});

describe('a refusal at a step of CHAP', () => {
  it('a wrong secret is status 0201', () => {
    const script = challenged(oneWay);
    const refusal = () => script.answer({ statusClass: 2, statusDetail: 1 });
    expect(refusal).toThrow(/0201.*check the CHAP user and secret/);
    expect(refusal).toThrow();
  });

  it('a target that supports none of the algorithms leads to the right hint', () => {
    const script = new LoginScript(oneWay);
    script.answer({ lines: [TAG, 'AuthMethod=CHAP'] });
    expect(() => script.answer({ statusClass: 2, statusDetail: 0 })).toThrow(
      expect.objectContaining({ code: 'ERR_CHAP_ALGORITHM', statusClass: 2 }),
    );
  });

  it('tgt takes algorithm 7 for SHA-1 and answers 0200, so the hint is MD5', () => {
    const script = new LoginScript(oneWay);
    script.answer({ lines: [TAG, 'AuthMethod=CHAP'] });
    script.answer({ lines: ['CHAP_A=7', ...CHALLENGE.slice(1)] });
    const refusal = () => script.answer({ statusClass: 2, statusDetail: 0 });
    expect(refusal).toThrow(/offer MD5 before SHA256/);
  });

  it('a refusal is a LoginRefusedError without secret or challenge', () => {
    const script = challenged(oneWay);
    try {
      script.answer({ statusClass: 2, statusDetail: 1 });
      expect.fail('not refused');
    } catch (error) {
      expect(error).toBeInstanceOf(LoginRefusedError);
      expect(String(error)).not.toMatch(/initiator-secret|00112233/);
    }
  });
});
