import type { ProductError } from '../base/errors.js';
import type { SendQueue } from '../base/send-queue.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { LinkEnd } from '../iscsi/session/session-effect.js';

/** Who uses a link to a target. After `Link.close` nothing is called any more. */
export interface TransportUser {
  /** The link is open: what is queued leaves and bytes arrive from now on. */
  linkOpened(): void;
  /** Bytes `start…end` of slab `slab`; an owner that keeps a part of them retains the slab. */
  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean;
  /** The system has taken everything that was queued. */
  allSent(): void;
  /** The link could not be opened, or is gone. Called once, and then nothing more. */
  linkFailed(error: ProductError): void;
}

/** Numeric addresses of our end and the target's. */
export type TransportAddresses = {
  readonly local: { readonly host: string; readonly port: number };
  readonly remote: { readonly host: string; readonly port: number };
};

/** One way to a target, from the beginning of its opening to its end. */
export interface Transport {
  readonly bytesReceivedTotal: number;
  readonly bytesSentTotal: number;
  /** Its two ends, where the way to the target has such; null before it is open. */
  addresses?(): TransportAddresses | null;
  /**
   * Ends it at once, also while it is still being opened; what is queued is not sent. After an
   * abrupt end neither is what the system has taken: no byte leaves this host any more.
   */
  close(end: LinkEnd): void;
}

/**
 * Begins to open a link that sends `queue`. Never calls the user before it has returned. TCP is
 * the real one (`tcp-transport.ts`).
 */
export type TransportOpener = (
  portal: PortalAddress,
  queue: SendQueue,
  user: TransportUser,
) => Transport;
