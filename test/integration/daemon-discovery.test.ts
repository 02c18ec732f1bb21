import { expect, it } from 'vitest';
import { HostileTarget } from '../helpers/hostile-target.js';
import { FROM, OP } from '../helpers/peer-pdu.js';
import { published } from '../helpers/published-schema.js';
import { DaemonProcess } from './daemon-process.js';

it('SendTargets of the control socket lists what can be used and warns of the rest (Jiva)', async () => {
  const data = Buffer.from(
    'Colour=red\0TargetName=iqn.2024-01.com.example:found\0TargetAddress=192.0.2.1:3260,-1\0',
  );
  await using target = await HostileTarget.start({
    fullFeature: (pdu, link) => {
      if (pdu.opcode !== FROM.text) return false;
      link.send({ opcode: OP.text, itt: pdu.itt, data });
      return true;
    },
  });
  await using daemon = new DaemonProcess();
  await daemon.start();
  const TargetPortal = `127.0.0.1:${target.port}`;
  const [answer] = await daemon.call([{ method: 'SendTargets', params: { TargetPortal } }]);
  expect(published('targets').parse(answer)).toEqual({
    targets: [
      { name: 'iqn.2024-01.com.example:found', portals: [{ host: '192.0.2.1', port: 3260 }] },
    ],
    warnings: [expect.stringContaining('Colour'), expect.stringContaining('-1')],
  });
}, 60_000);
