import { serialAdd } from '../../base/serial32.js';
import {
  FULL_FEATURE_PHASE,
  type LoginRequest,
  type LoginResponse,
  OPERATIONAL_STAGE,
} from '../pdu/login-pdu.js';
import { LOGIN_SEGMENT_BYTES_MAX } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';

/**
 * The rules for the header of a Login Response with Status-Class 0: RFC 7143 §11.13 (Login
 * Response) and the stages of §6.3 (Login Phase). Throws ProtocolError for the first one broken.
 * `previous` is the response before this one in the same login.
 */
export function checkLoginResponse(
  response: LoginResponse,
  context: {
    readonly request: LoginRequest;
    readonly previous: LoginResponse | null;
    readonly quirks: QuirkLog;
  },
): void {
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
  checkVersions(response, previous);
  if (previous !== null && response.statSN !== serialAdd(previous.statSN, 1)) {
    throw brokenRule(
      'login-statsn',
      `a login response with StatSN ${response.statSN} after ${previous.statSN}`,
    );
  }
  checkStages(response, request);
  checkTsih(response, request);
}

function checkVersions(response: LoginResponse, previous: LoginResponse | null): void {
  if (response.versionActive !== 0) {
    throw brokenRule('login-version-active', `Version-active is ${response.versionActive}, not 0`);
  }
  if (previous !== null && previous.versionMax !== response.versionMax) {
    throw brokenRule('login-version-max', 'Version-max changes during the login');
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
function checkTsih(response: LoginResponse, request: LoginRequest): void {
  const isFinal = response.transit && response.nextStage === FULL_FEATURE_PHASE;
  if (isFinal && response.tsih === 0) {
    throw brokenRule('login-tsih-zero', 'the final login response has TSIH 0');
  }
  const isNewSession = request.tsih === 0;
  if (response.tsih !== request.tsih && !(isFinal && isNewSession)) {
    throw brokenRule(
      'login-tsih',
      `a login response with TSIH ${response.tsih}, where ${request.tsih} is expected`,
    );
  }
}
