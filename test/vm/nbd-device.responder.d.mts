export interface Store {
  read(offset: number, length: number): Buffer;
  write(offset: number, data: Buffer): unknown;
}
export interface Responder {
  readonly seen: {
    readonly reads: number;
    readonly writes: number;
    readonly flushes: number;
    readonly trims: number;
    readonly ended: boolean;
  };
  shutDown(): void;
  complete(): Promise<void>;
  stopReading(): void;
}
export function respond(fd: number, store: Store): Responder;
export function ramStore(sizeBytes: number): Store & { readonly memory: Buffer };
export function fileStore(path: string): Store & { close(): void };
