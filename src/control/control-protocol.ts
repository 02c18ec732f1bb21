import * as z from 'zod';

/**
 * The control socket's language: JSON-RPC 2.0 (jsonrpc.org/specification), one message a line of
 * UTF-8 text, on a unix stream socket. Batches are not taken: a client sends several lines.
 */

export const CONTROL_PATH = '/run/iscsi-nbd/control.sock';
/** Grows when something a client relies on changes; additions do not count. */
export const PROTOCOL_VERSION = 1;
/** Bytes of one line, its end not counted. */
export const LINE_BYTES_MAX = 1 << 20;

/** Codes of JSON-RPC 2.0 §5.1 (Error object); `failed` is of the range left to servers. */
export const RpcCode = {
  parseError: -32_700,
  invalidRequest: -32_600,
  methodNotFound: -32_601,
  invalidParams: -32_602,
  internalError: -32_603,
  /** The method itself failed; `data` is an ErrorReport with the exit status. */
  failed: -32_000,
  /** More clients than the server takes. */
  tooManyClients: -32_001,
} as const;

export type RpcId = string | number | null;

const requestSchema = z.strictObject({
  jsonrpc: z.literal('2.0'),
  method: z.string().min(1).max(128),
  params: z.union([z.record(z.string(), z.unknown()), z.array(z.unknown()).max(64)]).optional(),
  id: z.union([z.string().max(256), z.number(), z.null()]).optional(),
});

export type RpcRequest = {
  /** Absent: a notification, which gets no answer. */
  readonly id?: RpcId;
  readonly method: string;
  readonly params: Readonly<Record<string, unknown>>;
};

export type RpcFault = { readonly code: number; readonly message: string; readonly data?: unknown };

/** The request in a line, or what is wrong with it and the id to say that to. */
export function parseRequest(
  line: string,
): RpcRequest | { readonly fault: RpcFault; readonly id: RpcId } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { id: null, fault: { code: RpcCode.parseError, message: 'the line is not JSON' } };
  }
  const parsed = requestSchema.safeParse(value);
  if (!parsed.success) {
    const why = Array.isArray(value) ? 'batches are not supported' : z.prettifyError(parsed.error);
    const message = `not a JSON-RPC 2.0 request: ${shortened(why)}`;
    return { id: idOf(value), fault: { code: RpcCode.invalidRequest, message } };
  }
  const { id, method, params } = parsed.data;
  if (Array.isArray(params) && params.length > 0) {
    const message = 'params must be an object: parameters go by name';
    return { id: id ?? null, fault: { code: RpcCode.invalidParams, message } };
  }
  const named = params === undefined || Array.isArray(params) ? {} : params;
  return { method, params: named, ...(id === undefined ? {} : { id }) };
}

export function resultLine(id: RpcId, result: unknown): string {
  return `${JSON.stringify({ jsonrpc: '2.0', id, result })}\n`;
}

export function faultLine(id: RpcId, error: RpcFault): string {
  return `${JSON.stringify({ jsonrpc: '2.0', id, error })}\n`;
}

/** A message of the server that answers no request: one event of a subscription. */
export function notificationLine(method: string, params: unknown): string {
  return `${JSON.stringify({ jsonrpc: '2.0', method, params })}\n`;
}

/** What a schema did not like, in one line. */
export function faultText(error: z.ZodError): string {
  const issues = error.issues.slice(0, 3).map((issue) => {
    const path = issue.path.map(String).join('.');
    return path === '' ? issue.message : `${path}: ${issue.message}`;
  });
  return shortened(issues.join('; '));
}

function idOf(value: unknown): RpcId {
  const id: unknown =
    typeof value === 'object' && value !== null && 'id' in value ? value.id : null;
  return typeof id === 'number' || (typeof id === 'string' && id.length <= 256) ? id : null;
}

function shortened(text: string): string {
  const line = text.replace(/\s+/g, ' ');
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}
