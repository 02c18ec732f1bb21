import type { Socket } from 'node:net';
import { isForeignFault } from '../base/errors.js';
import { LineSplitter } from '../base/line-splitter.js';
import { reportError } from '../errors/error-report.js';
import {
  faultLine,
  LINE_BYTES_MAX,
  notificationLine,
  parseRequest,
  RpcCode,
  type RpcFault,
  type RpcId,
  type RpcRequest,
  resultLine,
} from './control-protocol.js';

/** Requests of one client under way; beyond that it is not read. */
const OUTSTANDING_MAX = 16;
/** Unsent bytes to a client beyond which it is not read. */
const UNSENT_BYTES_HIGH = 256 << 10;
/** Unsent bytes beyond which a client with subscriptions is dropped: it does not read them. */
const UNSENT_BYTES_MAX = 4 << 20;
/** A client that asks nothing and hears nothing for so long is forgotten. */
const IDLE_MS_MAX = 120_000;
/** How long a client that is sent away may take to read why. */
const LINGER_MS = 2000;

/** What methods can do with the client that calls them. */
export type ControlClient = {
  /** Sends a notification; a client that does not read is dropped. */
  notify(method: string, params: unknown): void;
  /** Called once when the client is gone. */
  onGone(action: () => void): void;
};

/** Runs one method. Rejects with ProductError, or RpcFaultError for what the caller did wrong. */
export type CallMethod = (request: RpcRequest, client: ControlClient) => Promise<unknown>;

/** A fault with a code of JSON-RPC's own. */
export class RpcFaultError extends Error {
  readonly fault: RpcFault;

  constructor(fault: RpcFault) {
    super(fault.message);
    this.fault = fault;
  }
}

/** The error as it is reported to a client. */
export function faultOf(error: unknown): RpcFault {
  if (error instanceof RpcFaultError) return error.fault;
  if (isForeignFault(error)) {
    const report = reportError(error, {});
    return { code: RpcCode.failed, message: report.message, data: report };
  }
  return { code: RpcCode.internalError, message: 'internal error; see the log of the daemon' };
}

/** One client of the control socket. Whatever it does, it harms only itself. */
export class ControlConnection implements ControlClient {
  readonly #socket: Socket;
  readonly #call: CallMethod;
  readonly #onFailure: (error: unknown) => void;
  readonly #splitter = new LineSplitter(LINE_BYTES_MAX);
  readonly #whenGone: (() => void)[] = [];
  readonly #waiting: string[] = [];
  #outstanding = 0;
  #isLeaving = false;

  constructor(options: {
    readonly socket: Socket;
    readonly call: CallMethod;
    /** A method broke in a way it should not have. */
    readonly onFailure: (error: unknown) => void;
    readonly onGone: () => void;
  }) {
    this.#socket = options.socket;
    this.#call = options.call;
    this.#onFailure = options.onFailure;
    this.#whenGone.push(options.onGone);
    const { socket } = options;
    socket.on('data', (chunk) => this.#received(chunk));
    socket.on('drain', () => this.#goOn());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.#isLeaving = true;
      for (const action of this.#whenGone.splice(0)) action();
    });
    socket.setTimeout(IDLE_MS_MAX, () => {
      const hasBusiness = this.#outstanding > 0 || this.#whenGone.length > 1;
      if (!hasBusiness) socket.destroy();
    });
  }

  notify(method: string, params: unknown): void {
    if (this.#isLeaving) return;
    this.#write(notificationLine(method, params));
    // Answers are bounded by the requests under way; news go on for ever.
    if (this.#socket.writableLength > UNSENT_BYTES_MAX) this.#socket.destroy();
  }

  onGone(action: () => void): void {
    if (this.#isLeaving) action();
    else this.#whenGone.push(action);
  }

  /** Says why and ends; what is still received is thrown away. */
  sendAway(id: RpcId, fault: RpcFault): void {
    if (this.#isLeaving) return;
    this.#write(faultLine(id, fault));
    this.close();
  }

  /** Ends after what was written has been read, or has had the time to be. */
  close(): void {
    this.#isLeaving = true;
    this.#waiting.length = 0;
    this.#socket.end();
    this.#socket.resume();
    const timer = setTimeout(() => this.#socket.destroy(), LINGER_MS);
    this.#socket.once('close', () => clearTimeout(timer));
  }

  #received(chunk: Buffer): void {
    if (this.#isLeaving) return;
    for (const line of this.#splitter.push(chunk)) {
      if (line === null) {
        const message = `a line has more than ${LINE_BYTES_MAX} bytes`;
        this.sendAway(null, { code: RpcCode.invalidRequest, message });
        return;
      }
      if (line.trim() !== '') this.#waiting.push(line);
    }
    this.#goOn();
  }

  /** Takes up waiting requests as far as this client may; reads on only when nothing waits. */
  #goOn(): void {
    while (this.#mayBegin) {
      const line = this.#waiting.shift();
      if (line === undefined) break;
      this.#begin(line);
    }
    if (this.#isLeaving) return;
    if (this.#waiting.length > 0 || !this.#mayBegin) this.#socket.pause();
    else this.#socket.resume();
  }

  get #mayBegin(): boolean {
    const hasRoom = this.#socket.writableLength < UNSENT_BYTES_HIGH;
    return !this.#isLeaving && this.#outstanding < OUTSTANDING_MAX && hasRoom;
  }

  #begin(line: string): void {
    const request = parseRequest(line);
    if ('fault' in request) {
      this.#write(faultLine(request.id, request.fault));
      return;
    }
    this.#outstanding += 1;
    this.#answer(request).finally(() => {
      this.#outstanding -= 1;
      this.#goOn();
    });
  }

  async #answer(request: RpcRequest): Promise<void> {
    const { id } = request;
    try {
      const result = await this.#call(request, this);
      if (id !== undefined) this.#write(resultLine(id, result));
    } catch (error) {
      if (id !== undefined) this.#write(faultLine(id, this.#faultOf(error)));
    }
  }

  #faultOf(error: unknown): RpcFault {
    const fault = faultOf(error);
    if (fault.code === RpcCode.internalError) this.#onFailure(error);
    return fault;
  }

  #write(line: string): void {
    if (!this.#isLeaving) this.#socket.write(line);
  }
}
