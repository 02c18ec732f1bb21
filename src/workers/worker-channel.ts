import { type Deferred, deferred } from '../base/deferred.js';
import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { Envelope, Refusal } from './worker-protocol.js';

/** Both ends of a worker have one: a thread's `parentPort`, or a `Worker`. */
export type Port = {
  postMessage(message: unknown): void;
  on(event: 'message', listener: (message: unknown) => void): unknown;
};

/** What the other thread refuses, as it says it. */
export class RefusedError extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super('fault' in refusal ? refusal.fault.message : 'the login belongs into another worker');
    this.refusal = refusal;
  }
}

/** The messages of two threads, with an answer for each question. */
export class WorkerChannel<Sent, Received> {
  readonly #port: Port;
  readonly #questions = new Map<number, Deferred<unknown>>();
  #count = 0;
  #whyClosed: string | null = null;

  constructor(
    port: Port,
    hooks: {
      readonly told: (body: Received) => void;
      /** Rejects with RefusedError; anything else is a bug of this thread. */
      readonly asked: (body: Received) => Promise<unknown>;
    },
  ) {
    this.#port = port;
    port.on('message', (message) => {
      // Only the other thread of this program can post here.
      const envelope = message as Envelope<Received>;
      switch (envelope.kind) {
        case 'tell':
          hooks.told(envelope.body);
          return;
        case 'ask':
          this.#answer(envelope.id, hooks.asked(envelope.body));
          return;
        case 'answer':
          this.#take(envelope.id)?.resolve(envelope.result);
          return;
        case 'refuse':
          this.#take(envelope.id)?.reject(new RefusedError(envelope.refusal));
      }
    });
  }

  tell(body: Sent): void {
    if (this.#whyClosed === null) this.#post({ kind: 'tell', body });
  }

  /** Rejects with RefusedError, or UsageError 20 once the other thread has ended. */
  ask(body: Sent): Promise<unknown> {
    if (this.#whyClosed !== null) return Promise.reject(ended(this.#whyClosed));
    this.#count += 1;
    const question = deferred<unknown>();
    this.#questions.set(this.#count, question);
    this.#post({ kind: 'ask', id: this.#count, body });
    return question.promise;
  }

  /** The other thread has ended: it answers no more. */
  close(why: string): void {
    this.#whyClosed = why;
    for (const question of this.#questions.values()) question.reject(ended(why));
    this.#questions.clear();
  }

  #answer(id: number, answer: Promise<unknown>): void {
    answer.then(
      (result) => this.#post({ kind: 'answer', id, result }),
      (error: unknown) => {
        if (!(error instanceof RefusedError)) throw error;
        this.#post({ kind: 'refuse', id, refusal: error.refusal });
      },
    );
  }

  #take(id: number): Deferred<unknown> | undefined {
    const question = this.#questions.get(id);
    this.#questions.delete(id);
    return question;
  }

  #post(envelope: Envelope<Sent>): void {
    this.#port.postMessage(envelope);
  }
}

function ended(why: string): UsageError {
  return new UsageError(`${why}. Its sessions are taken over; try again.`, {
    exitCode: EXIT_CODES.daemonNotRunning.code,
    code: 'ERR_WORKER_ENDED',
  });
}
