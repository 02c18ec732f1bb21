import { serialAdd } from '../../base/serial32.js';
import {
  FULL_FEATURE_PHASE,
  type LoginRequest,
  type LoginResponse,
  OPERATIONAL_STAGE,
} from '../pdu/login-pdu.js';
import { LOGIN_SEGMENT_BYTES_MAX } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';

type LoginContext = {
  readonly request: LoginRequest;
  readonly previous: LoginResponse | null;
  readonly quirks: QuirkLog;
};

/**
 * The rules for the header of a Login Response with Status-Class 0: RFC 7143 §11.13 (Login
 * Response) and the stages of §6.3 (Login Phase). Throws ProtocolError for the first
 * one broken that a login cannot live with.
 * `previous` is the response before this one in the same login.
 */
export function checkLoginResponse(response: LoginResponse, context: LoginContext): void {
  const { request, previous, quirks } = context;
  // RFC 7143 §6.3 (Login Phase): the default MaxRecvDataSegmentLength is used during login.
  if (response.data.length > LOGIN_SEGMENT_BYTES_MAX) {
    throw brokenRule(
      'login-data-size',
      `a login response with ${response.data.length} bytes of data`,
    );
  }
  if (Buffer.compare(response.isid, request.isid) !== 0) {
    quirks.met('login-isid', 'login responses carry another ISID than the requests');
  }
  checkVersions(response, context);
  if (previous !== null && response.statSN !== serialAdd(previous.statSN, 1)) {
    const numbers = `${previous.statSN} and ${response.statSN}`;
    quirks.met('login-statsn', `login responses in a row have StatSN ${numbers}`);
  }
  checkStages(response, request);
  checkTsih(response, context);
}

function checkVersions(response: LoginResponse, { previous, quirks }: LoginContext): void {
  if (response.versionActive !== 0) {
    throw brokenRule('login-version-active', `Version-active is ${response.versionActive}, not 0`);
  }
  if (previous !== null && previous.versionMax !== response.versionMax) {
    quirks.met('login-version-max', 'Version-max changes during the login');
  }
}

function checkStages(response: LoginResponse, request: LoginRequest): void {
  const { currentStage, nextStage } = response;
  // RFC 7143 §6.3 (Login Phase): request and response carry the same CSG code.
  if (currentStage !== request.currentStage) {
    throw brokenRule(
      'login-stage',
      `a login response of stage ${currentStage} to a request of stage ${request.currentStage}`,
    );
  }
  if (!response.transit) return;
  if (response.continued) {
    throw brokenRule(
      'login-transit-continue',
      'a login response with both the T bit and the C bit',
    );
  }
  if (!request.transit) {
    throw brokenRule('login-transit', 'a login response with the T bit, which was not proposed');
  }
  // RFC 7143 §6.3 (Login Phase): the NSG must not exceed the initiator's, and stages only go up.
  const isStage = nextStage === OPERATIONAL_STAGE || nextStage === FULL_FEATURE_PHASE;
  if (!isStage || nextStage <= currentStage || nextStage > request.nextStage) {
    throw brokenRule(
      'login-next-stage',
      `a login response goes from stage ${currentStage} to ${nextStage}; ` +
        `${request.nextStage} was proposed`,
    );
  }
}

/** RFC 7143 §11.13.3 (TSIH): new and not 0 in the final response only. */
function checkTsih(response: LoginResponse, { request, quirks }: LoginContext): void {
  const { tsih } = response;
  const isFinal = response.transit && response.nextStage === FULL_FEATURE_PHASE;
  if (request.tsih !== 0 && tsih !== request.tsih) {
    throw brokenRule(
      'login-tsih',
      `a login response with TSIH ${tsih}, where ${request.tsih} is expected`,
    );
  }
  if (isFinal && tsih === 0) {
    quirks.met('login-tsih-zero', 'the final login response has TSIH 0');
  } else if (!isFinal && tsih !== request.tsih) {
    quirks.met('login-tsih-early', `a login response before the last one has TSIH ${tsih}`);
  }
}
