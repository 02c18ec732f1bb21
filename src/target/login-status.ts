/** What the target says of a login: RFC 7143 §11.13.5 (Status-Class and Status-Detail). */
export type TargetLoginStatus = { readonly class: number; readonly detail: number };

export const LOGIN_STATUS = {
  success: { class: 0, detail: 0x00 },
  movedTemporarily: { class: 1, detail: 0x01 },
  movedPermanently: { class: 1, detail: 0x02 },
  initiatorError: { class: 2, detail: 0x00 },
  authenticationFailure: { class: 2, detail: 0x01 },
  notFound: { class: 2, detail: 0x03 },
  unsupportedVersion: { class: 2, detail: 0x05 },
  tooManyConnections: { class: 2, detail: 0x06 },
  missingParameter: { class: 2, detail: 0x07 },
  sessionTypeNotSupported: { class: 2, detail: 0x09 },
  sessionDoesNotExist: { class: 2, detail: 0x0a },
  invalidDuringLogin: { class: 2, detail: 0x0b },
} as const satisfies Record<string, TargetLoginStatus>;

/** Ends the login with a status; thrown inside the login only. */
export class LoginEnd extends Error {
  readonly status: TargetLoginStatus;
  readonly keys: readonly (readonly [string, string])[];

  constructor(status: TargetLoginStatus, keys: readonly (readonly [string, string])[] = []) {
    super(`login ends with status ${status.class}/${status.detail}`);
    this.status = status;
    this.keys = keys;
  }
}
