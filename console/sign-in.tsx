import { useSignal } from '@preact/signals';
import { Refused } from './api/request.js';
import { signIn } from './session.js';

/** Where a key is exchanged for a session. The page forgets the key at once. */
export function SignIn({ says, signedIn }: { readonly says: string | null; readonly signedIn: () => Promise<void> }) {
  const message = useSignal(says);
  const isBusy = useSignal(false);
  const submit = async (form: HTMLFormElement) => {
    const given = new FormData(form).get('key');
    const key = typeof given === 'string' ? given.trim() : '';
    if (key === '' || isBusy.value) return;
    isBusy.value = true;
    try {
      await signIn({ key });
      form.reset();
      await signedIn();
    } catch (error) {
      message.value =
        error instanceof Refused && error.problem.code === 'unauthenticated'
          ? 'This is no valid key.'
          : error instanceof Error
            ? error.message
            : 'It did not work.';
    } finally {
      isBusy.value = false;
    }
  };
  return (
    <main class="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit(event.currentTarget);
        }}
      >
        <h1>Threadlog</h1>
        <label for="key">API key</label>
        <input id="key" name="key" type="password" autocomplete="current-password" required aria-describedby="about-key" />
        <p id="about-key">The first start of the server prints a key and a link that works without one. The page does not keep the key.</p>
        <p role="alert" class="fault">
          {message}
        </p>
        <button type="submit" class="primary" disabled={isBusy}>
          Sign in
        </button>
      </form>
    </main>
  );
}
