import type { RefObject } from 'preact';
import { KEYS, keysSaid } from '../keys.js';

/** Every key, from the table that the keys themselves come from. */
export function KeySheet({ element }: { readonly element: RefObject<HTMLDialogElement | null> }) {
  return (
    <dialog ref={element} aria-labelledby="keys-title">
      <h2 id="keys-title">Keys</h2>
      <table>
        <tbody>
          {KEYS.map((binding) => (
            <tr key={binding.action}>
              <th scope="row">
                <kbd>{keysSaid(binding)}</kbd>
              </th>
              <td>{binding.says}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p>Single keys do nothing while you write. On a Mac, Cmd does what Ctrl does.</p>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
