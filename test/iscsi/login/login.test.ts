import { describe, expect, it } from 'vitest';
import { LoginRefusedError, ProtocolError, UsageError } from '../../../src/base/errors.js';
import type { BoundGroup } from '../../../src/iscsi/login/login.js';
import {
  accept,
  ISID,
  LoginScript,
  linesOf,
  NO_SECURITY,
  OFFER,
  operational,
  TGT_ANSWER,
  text,
} from './login-script.js';

const section = (number: string) => expect.objectContaining({ section: number });

describe('RFC 7143 §6.3 (Login Phase)', () => {
  it('the first request carries InitiatorName, TargetName and SessionType', () => {
    const script = new LoginScript();
    expect(script.lines).toEqual([
      'InitiatorName=iqn.1999-07.com.os:hostid.77',
      'TargetName=iqn.1999-07.com.example:diskarray.sn.88',
      'SessionType=Normal',
      'AuthMethod=None',
    ]);
    expect(script.request).toMatchObject({ currentStage: 0, nextStage: 1, transit: true });
  });

  it('a login to tgt ends in the values of its answers', () => {
    const script = operational();
    expect(script.request).toMatchObject({ currentStage: 1, nextStage: 3, transit: true });
    const step = script.done(accept());
    expect(step.tsih).toBe(256);
    expect(step.parameters).toEqual({
      headerDigest: 'None',
      dataDigest: 'None',
      maxConnections: 1,
      initialR2T: true,
      immediateData: true,
      initiatorMaxRecvDataSegmentLength: 262144,
      targetMaxRecvDataSegmentLength: 8192,
      maxBurstLength: 262144,
      firstBurstLength: 65536,
      maxOutstandingR2T: 1,
      defaultTime2Wait: 2,
      defaultTime2Retain: 0,
      errorRecoveryLevel: 0,
      dataPduInOrder: true,
      dataSequenceInOrder: true,
      taskReporting: 'RFC3720',
      protocolLevel: 1,
      targetPortalGroupTag: 1,
      targetAlias: null,
    });
    expect(step.warnings).toEqual([]);
    expect(step.keys).toContainEqual({
      key: 'InitialR2T',
      offered: 'No',
      declaredByTarget: 'Yes',
      inForce: 'Yes',
    });
  });

  it('all requests of a login carry the same tag, CID, TSIH, ISID and CmdSN', () => {
    const script = operational();
    script.answer({});
    expect(script.requests).toHaveLength(3);
    for (const request of script.requests) {
      expect(request).toMatchObject({ initiatorTaskTag: 0x11, cid: 0, tsih: 0, cmdSN: 123 });
      expect(Buffer.from(request.isid)).toEqual(ISID);
    }
  });

  it('a target may take several rounds: the T bit stays until it agrees', () => {
    const script = new LoginScript();
    script.answer({ lines: ['TargetPortalGroupTag=1', 'AuthMethod=None'] });
    expect(script.request).toMatchObject({ currentStage: 0, nextStage: 1, transit: true });
    expect(script.request.data).toHaveLength(0);
    script.answer({ transit: true, nextStage: 1 });
    script.answer({ lines: TGT_ANSWER.slice(0, 5) });
    expect(script.request).toMatchObject({ currentStage: 1, nextStage: 3, transit: true });
    script.answer({ lines: TGT_ANSWER.slice(5) });
    expect(script.done(accept([])).parameters.maxOutstandingR2T).toBe(1);
  });

  it('no next stage is proposed without the T bit', () => {
    const chap = { user: 'u', secret: Buffer.alloc(16, 1), algorithms: ['MD5' as const] };
    const script = new LoginScript({ chap });
    expect(script.request).toMatchObject({ currentStage: 0, nextStage: 0, transit: false });
  });

  it.each([
    ['another stage than that of the request', { lines: NO_SECURITY.lines ?? [], currentStage: 1 }],
    ['a next stage above the proposed one', { ...NO_SECURITY, nextStage: 3, tsih: 1 }],
    ['the stage it is in as the next', { ...NO_SECURITY, nextStage: 0 }],
    ['the reserved stage 2', { ...NO_SECURITY, nextStage: 2 }],
    ['another Initiator Task Tag', { ...NO_SECURITY, initiatorTaskTag: 0x12 }],
    ['more data than 8192 bytes', { data: Buffer.alloc(8193) }],
  ])('a response with %s ends the login', (_what, answer) => {
    expect(() => new LoginScript().answer(answer)).toThrow(section('6.3'));
  });

  it('a login is bounded in its rounds', () => {
    const script = operational();
    const rounds = () => {
      for (let round = 0; round < 1000; round += 1) script.answer({});
    };
    expect(rounds).toThrow(section('6.2'));
    expect(script.requests.length).toBeGreaterThan(6);
  });

  it('a key that is sent twice with different values ends the login, in one response and in two', () => {
    expect(() => operational().answer({ lines: ['InitialR2T=Yes', 'InitialR2T=No'] })).toThrow(
      section('6.3'),
    );
    const script = operational();
    script.answer({ lines: ['MaxBurstLength=4096'] });
    expect(() => script.answer({ lines: ['MaxBurstLength=8192'] })).toThrow(section('6.3'));
  });

  it('a target that repeats a key with its value is logged in to (open-iscsi reads both)', () => {
    const script = operational();
    script.answer({ lines: ['MaxBurstLength=4096', 'TargetPortalGroupTag=1', 'TargetAlias=a'] });
    const lines = ['MaxBurstLength=4096', 'FirstBurstLength=4096', 'TargetAlias=b'];
    const { parameters } = script.done(accept([...TGT_ANSWER.slice(0, 8), ...lines]));
    expect(parameters).toMatchObject({ maxBurstLength: 4096, targetAlias: 'b' });
    expect(script.quirks).toMatchObject([{ quirk: 'key-repeated' }]);
  });

  it('a normal session without a target name is rejected', () => {
    expect(() => new LoginScript({ targetName: undefined as unknown as string })).toThrow(
      'target name',
    );
  });
});

describe('RFC 7143 §6.2 (Text Mode Negotiation): the C bit', () => {
  it('a response with the C bit is answered by an empty request without T and C', () => {
    const script = operational();
    const whole = text(TGT_ANSWER);
    script.answer({ continued: true, data: whole.subarray(0, 17) });
    expect(script.request).toMatchObject({ transit: false, continued: false });
    expect(script.request.data).toHaveLength(0);
    script.answer({ data: whole.subarray(17) });
    expect(script.request.transit).toBe(true);
    expect(script.done(accept([])).parameters.initialR2T).toBe(true);
  });

  it('a text over 8192 bytes is sent in parts, each answered by an empty response', () => {
    const script = operational();
    const names = Array.from({ length: 300 }, (_, index) => `X-com.example.key.number.${index}`);
    const proposals = text(names.map((name) => `${name}=1`));
    for (let at = 0; at < proposals.length; at += 8192) {
      const data = proposals.subarray(at, at + 8192);
      script.answer({ continued: at + 8192 < proposals.length, data });
    }
    const first = script.request;
    expect(first).toMatchObject({ continued: true, transit: false });
    expect(first.data).toHaveLength(8192);
    script.answer({});
    const second = script.request;
    expect(second).toMatchObject({ continued: false, transit: true });
    const sent = linesOf({ ...first, data: Buffer.concat([first.data, second.data]) });
    expect(sent).toEqual(names.map((name) => `${name}=NotUnderstood`));
  });

  it('an answer with data to a request with the C bit ends the login', () => {
    const script = operational();
    const names = Array.from({ length: 300 }, (_, index) => `X-com.example.key.number.${index}`);
    const proposals = text(names.map((name) => `${name}=1`));
    script.answer({ continued: true, data: proposals.subarray(0, 8192) });
    script.answer({ data: proposals.subarray(8192) });
    expect(script.request.continued).toBe(true);
    expect(() => script.answer({ lines: ['X-a=1'] })).toThrow(section('6.2'));
  });

  it('a text of more than 64 KiB ends the login', () => {
    const script = operational();
    const flood = () => {
      for (let part = 0; part < 9; part += 1) {
        script.answer({ continued: true, data: Buffer.alloc(8192, 0x41) });
      }
    };
    expect(flood).toThrow(section('6.1'));
  });
});

describe('RFC 7143 §11.13 (Login Response)', () => {
  it('§11.13.2: a version other than 0 ends the login', () => {
    expect(() => new LoginScript().answer({ ...NO_SECURITY, versionActive: 1 })).toThrow(
      section('11.13.2'),
    );
  });

  it('§11.13.1: a target that changes Version-max is logged in to', () => {
    const script = operational();
    script.done({ ...accept(), versionMax: 1 });
    expect(script.quirks).toMatchObject([{ quirk: 'login-version-max', section: '11.13.1' }]);
  });

  it('§11.13.3: gotgt answers with TSIH 0 to the end, and is logged in to', () => {
    const script = operational();
    expect(script.done({ ...accept(), tsih: 0 }).tsih).toBe(0);
    expect(script.quirks).toMatchObject([{ quirk: 'login-tsih-zero', section: '11.13.3' }]);
  });

  it('§11.13.3: jSCSI and iSCSIConsole give the TSIH early, and the last one counts', () => {
    const script = new LoginScript();
    script.answer({ ...NO_SECURITY, tsih: 5 });
    expect(script.done({ ...accept(), tsih: 6 }).tsih).toBe(6);
    expect(script.quirks).toMatchObject([{ quirk: 'login-tsih-early', section: '11.13.3' }]);
  });

  it('§11.13.3: the TSIH of another session ends the login of a connection', () => {
    const parameters = operational().done(accept()).parameters;
    const script = () => new LoginScript({ tsih: 256, cid: 1, sessionParameters: parameters });
    expect(() => script().answer({ ...NO_SECURITY, tsih: 5 })).toThrow(section('11.13.3'));
  });

  it('§11.13.4: StatSN starts anywhere and grows by one, over 2^32 too', () => {
    const script = new LoginScript();
    expect(script.request.expStatSN).toBe(0);
    script.answer({ ...NO_SECURITY, statSN: 0xffffffff });
    expect(script.request.expStatSN).toBe(0);
    expect(script.done({ ...accept(), statSN: 0 }).type).toBe('done');
  });

  it.each([0xfffffffe, 0, 7])(
    '§11.13.4: NetBSD counts StatSN otherwise (%i after 4294967294), and the last one counts',
    (statSN) => {
      const script = operational();
      script.answer({ lines: [], statSN });
      expect(script.request.expStatSN).toBe((statSN + 1) % 2 ** 32);
      expect(script.done({ ...accept(), statSN }).type).toBe('done');
      expect(script.quirks).toMatchObject([{ quirk: 'login-statsn', section: '11.13.4' }]);
    },
  );

  it('§11.13.6: a T bit that was not proposed ends the login', () => {
    const chap = { user: 'u', secret: Buffer.alloc(16, 1), algorithms: ['MD5' as const] };
    expect(() => new LoginScript({ chap }).answer(NO_SECURITY)).toThrow(section('11.13.6'));
  });

  it('§11.13.6: SPDK proposes FirstBurstLength at the end, and the smaller value is used', () => {
    const offer = { ...OFFER, initialR2T: true, immediateData: false };
    const lines = [...TGT_ANSWER.filter((line) => !/First|Immediate/.test(line))];
    for (const [proposed, used] of [
      [4096, 4096],
      [131072, 65536],
    ]) {
      const script = operational({ offer });
      expect(script.lines.join()).not.toMatch(/FirstBurstLength/);
      const { parameters } = script.done(accept([...lines, `FirstBurstLength=${proposed}`]));
      expect(parameters.firstBurstLength).toBe(used);
      expect(script.quirks).toMatchObject([{ quirk: 'proposal-last', section: '11.13.6' }]);
    }
  });

  it.each(['DataPDUInOrder=No', 'ErrorRecoveryLevel=1', 'MaxBurstLength=x'])(
    '§11.13.6: %s in the last response, where it was not offered, ends the login',
    (line) => {
      const sessionParameters = operational().done(accept()).parameters;
      const script = new LoginScript({ tsih: 256, cid: 1, sessionParameters });
      script.answer({ ...NO_SECURITY, tsih: 256 });
      expect(() => script.answer(accept([line]))).toThrow(section('11.13.6'));
    },
  );

  it('§11.13.7: T and C exclude each other', () => {
    expect(() => new LoginScript().answer({ ...NO_SECURITY, continued: true })).toThrow(
      section('11.13.7'),
    );
  });

  it('gotgt answers with ISID 0, and the login goes on', () => {
    const script = new LoginScript();
    script.answer({ ...NO_SECURITY, isid: Buffer.alloc(6) });
    script.done({ ...accept(), isid: Buffer.alloc(6) });
    expect(script.quirks).toMatchObject([{ quirk: 'login-isid', section: '11.13' }]);
  });
});

describe('RFC 7143 §13.9 (TargetPortalGroupTag)', () => {
  it('gotgt tells the tag in its last response only', () => {
    const script = new LoginScript();
    script.answer({ ...NO_SECURITY, lines: ['AuthMethod=None'] });
    const { parameters } = script.done(accept([...TGT_ANSWER, 'TargetPortalGroupTag=1']));
    expect(parameters.targetPortalGroupTag).toBe(1);
    expect(script.quirks).toMatchObject([{ quirk: 'portal-group-late', section: '13.9' }]);
  });

  it('iSCSIConsole before 1.3.3 and Jiva tell no tag, and the group is unknown', () => {
    const script = new LoginScript();
    script.answer({ ...NO_SECURITY, lines: ['AuthMethod=None'] });
    expect(script.done(accept()).parameters.targetPortalGroupTag).toBeNull();
    expect(script.quirks).toMatchObject([{ quirk: 'portal-group-missing', section: '13.9' }]);
  });

  it('a target without a tag is the same at its address, and refused elsewhere while requests wait', () => {
    const login = (boundGroup: BoundGroup, lines: readonly string[]) => {
      const script = new LoginScript({ boundGroup });
      script.answer({ ...NO_SECURITY, lines: [...lines, 'AuthMethod=None'] });
      return script.answer(accept()).type;
    };
    const refused = expect.objectContaining({
      code: 'ERR_PORTAL_GROUP',
      rule: 'portal-group-unknown',
    });
    for (const tag of [null, 1]) expect(login({ tag, isSameAddress: true }, [])).toBe('done');
    for (const tag of [null, 1]) {
      expect(() => login({ tag, isSameAddress: false }, [])).toThrow(refused);
    }
    const tagged = ['TargetPortalGroupTag=1'];
    expect(login({ tag: null, isSameAddress: true }, tagged)).toBe('done');
    expect(() => login({ tag: null, isSameAddress: false }, tagged)).toThrow(refused);
  });

  it('a late tag of another group ends the login while requests wait', () => {
    const script = new LoginScript({ boundGroup: { tag: 2, isSameAddress: true } });
    script.answer({ ...NO_SECURITY, lines: ['AuthMethod=None'] });
    expect(() => script.answer(accept([...TGT_ANSWER, 'TargetPortalGroupTag=1']))).toThrow(
      expect.objectContaining({ code: 'ERR_PORTAL_GROUP' }),
    );
  });

  it('a first response in parts is one response', () => {
    const script = new LoginScript();
    script.answer({ continued: true, lines: ['AuthMethod=None'] });
    script.answer({ lines: ['TargetPortalGroupTag=0x10'] });
    script.answer({ transit: true, nextStage: 1 });
    expect(script.done(accept()).parameters.targetPortalGroupTag).toBe(16);
  });

  it('the tag 0 is a tag like any other', () => {
    const script = new LoginScript({ boundGroup: { tag: 0, isSameAddress: true } });
    script.answer({ ...NO_SECURITY, lines: ['TargetPortalGroupTag=0', 'AuthMethod=None'] });
    expect(script.done(accept()).parameters.targetPortalGroupTag).toBe(0);
  });

  it('a tag other than the expected one ends the login', () => {
    const script = new LoginScript({ boundGroup: { tag: 2, isSameAddress: true } });
    expect(() => script.answer(NO_SECURITY)).toThrow(
      expect.objectContaining({ code: 'ERR_PORTAL_GROUP' }),
    );
  });

  it.each(['65536', '-1', 'x', ''])('the tag %j (Jiva has -1) counts as none', (tag) => {
    const script = new LoginScript();
    const lines = [`TargetPortalGroupTag=${tag}`, 'AuthMethod=None'];
    script.answer({ ...NO_SECURITY, lines });
    expect(script.done(accept()).parameters.targetPortalGroupTag).toBeNull();
    expect(script.quirks[0]).toMatchObject({ quirk: 'reply-clamped', section: '13.9' });
  });
});

describe('RFC 7143 §11.13.5 (Status-Class and Status-Detail)', () => {
  const REFUSAL = { statSN: 0, isid: Buffer.alloc(6), currentStage: 0 };

  it('a refusal yields its name, its reason and the next step; its numbers do not count', () => {
    expect(() => operational().answer({ ...REFUSAL, statusClass: 2, statusDetail: 3 })).toThrow(
      /Not found \(status 0203\).*no target of this name/,
    );
    expect(() => operational().answer({ ...REFUSAL, statusClass: 3, statusDetail: 1 })).toThrow(
      LoginRefusedError,
    );
  });

  it('a redirection yields its addresses, permanent or temporary', () => {
    const lines = ['TargetAddress=10.0.0.2:3261', 'TargetAddress=[::1]'];
    const answer = { ...REFUSAL, statusClass: 1, statusDetail: 2, lines };
    expect(new LoginScript().answer(answer)).toEqual({
      type: 'redirect',
      permanent: true,
      authenticated: true,
      addresses: [
        { host: '10.0.0.2', port: 3261 },
        { host: '::1', port: 3260 },
      ],
    });
    expect(new LoginScript().answer({ ...answer, statusDetail: 1 })).toMatchObject({
      permanent: false,
    });
  });

  it('a redirection to a good address and a bad one goes to the good one', () => {
    const script = new LoginScript();
    const lines = ['TargetAddress=a b', 'TargetAddress=10.0.0.2:3261'];
    const answer = { ...REFUSAL, statusClass: 1, statusDetail: 1, lines };
    expect(script.answer(answer)).toMatchObject({
      type: 'redirect',
      addresses: [{ host: '10.0.0.2', port: 3261 }],
    });
    expect(script.quirks).toMatchObject([{ quirk: 'redirect-address', section: '13.8' }]);
  });

  it('a redirection before the configured authentication is marked as such', () => {
    const chap = { user: 'u', secret: Buffer.alloc(16, 1), algorithms: ['MD5' as const] };
    const lines = ['TargetAddress=10.0.0.2'];
    const step = new LoginScript({ chap }).answer({ statusClass: 1, statusDetail: 1, lines });
    expect(step).toMatchObject({ type: 'redirect', authenticated: false });
  });

  it.each([[[]], [['TargetAddress=']], [['TargetAddress=a b']], [['TargetAlias=x']]])(
    'a redirection with %j ends the login',
    (lines) => {
      const answer = { ...REFUSAL, statusClass: 1, statusDetail: 1, lines };
      expect(() => new LoginScript().answer(answer)).toThrow(ProtocolError);
    },
  );
});

describe('RFC 7143 §13.21 (SessionType)', () => {
  it('a discovery session offers no key that is irrelevant in it, and ErrorRecoveryLevel 0', () => {
    const script = operational({
      sessionType: 'Discovery',
      offer: { ...OFFER, errorRecoveryLevel: 2 },
    });
    expect(script.lines.map((line) => line.split('=')[0])).toEqual([
      'HeaderDigest',
      'DataDigest',
      'MaxRecvDataSegmentLength',
      'DefaultTime2Wait',
      'DefaultTime2Retain',
      'ErrorRecoveryLevel',
    ]);
    expect(script.lines).toContain('ErrorRecoveryLevel=0');
  });
});

describe('RFC 7143 §13.23 (TaskReporting) and §13.24 (iSCSIProtocolLevel Negotiation)', () => {
  const offer = {
    ...OFFER,
    taskReporting: ['ResponseFence', 'RFC3720'] as const,
    protocolLevel: 1,
  };

  it('TaskReporting and iSCSIProtocolLevel are offered if configured, and RFC 3720 understands neither', () => {
    const script = operational({ offer });
    expect(script.lines).toContain('TaskReporting=ResponseFence,RFC3720');
    expect(script.lines).toContain('iSCSIProtocolLevel=1');
    const more = ['TaskReporting=NotUnderstood', 'iSCSIProtocolLevel=NotUnderstood'];
    const { parameters, warnings } = script.done(accept([...TGT_ANSWER, ...more]));
    expect(parameters).toMatchObject({ taskReporting: 'RFC3720', protocolLevel: 1 });
    expect(warnings).toEqual([]);
  });

  it('the values that the target selects are in force', () => {
    const more = ['TaskReporting=ResponseFence', 'iSCSIProtocolLevel=1'];
    const { parameters } = operational({ offer }).done(accept([...TGT_ANSWER, ...more]));
    expect(parameters.taskReporting).toBe('ResponseFence');
  });

  it('FastAbort is rejected if it was not offered', () => {
    const script = operational({ offer });
    expect(() => script.answer(accept([...TGT_ANSWER, 'TaskReporting=FastAbort']))).toThrow(
      section('13.23'),
    );
  });

  it('a discovery session offers neither TaskReporting nor iSCSIProtocolLevel', () => {
    const script = operational({ offer, sessionType: 'Discovery' });
    expect(script.lines.join()).not.toMatch(/TaskReporting|ProtocolLevel/);
  });
});

describe('RFC 7143 §11.12.6 (TSIH)', () => {
  it('an added connection sends no leading-only key and keeps the parameters of the session', () => {
    const { parameters } = operational().done(accept());
    const options = { tsih: 256, cid: 1, sessionParameters: parameters };
    const script = new LoginScript(options);
    expect(script.lines.join()).not.toMatch(/SessionType/);
    script.answer({ ...NO_SECURITY, tsih: 256 });
    expect(script.lines.map((line) => line.split('=')[0])).toEqual([
      'HeaderDigest',
      'DataDigest',
      'MaxRecvDataSegmentLength',
    ]);
    const lines = ['HeaderDigest=CRC32C', 'DataDigest=None', 'MaxRecvDataSegmentLength=65536'];
    expect(script.done(accept(lines)).parameters).toEqual({
      ...parameters,
      headerDigest: 'CRC32C',
      targetMaxRecvDataSegmentLength: 65536,
    });
  });

  it('a TSIH other than that of the session ends the login', () => {
    const { parameters } = operational().done(accept());
    const script = new LoginScript({ tsih: 7, sessionParameters: parameters });
    script.answer({ ...NO_SECURITY, tsih: 7 });
    expect(() => script.answer({ ...accept([]), tsih: 8 })).toThrow(section('11.13.3'));
  });
});

describe('LoginOffer', () => {
  it.each([
    { maxBurstLength: 511 },
    { maxRecvDataSegmentLength: 2 ** 24 },
    { maxOutstandingR2T: 0 },
    { errorRecoveryLevel: 3 },
    { defaultTime2Wait: 3601 },
    { firstBurstLength: 4096, maxBurstLength: 2048 },
    { headerDigest: [] },
    { taskReporting: ['FastAbort' as const] },
  ])('the offer %j is a usage error', (bad) => {
    expect(() => new LoginScript({ offer: { ...OFFER, ...bad } })).toThrow(UsageError);
  });
});
