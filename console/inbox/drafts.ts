/** What somebody has written and not sent. It lies beside the server's state, and no frame touches it. */
export interface Draft {
  readonly text: string;
  readonly type: 'reply' | 'note';
  /** The revision that its writer saw. */
  readonly seen: number | null;
}

const NONE: Draft = { text: '', type: 'reply', seen: null };

/** Drafts of one person, by conversation, kept over reloads and shared between tabs. */
export class Drafts {
  constructor(private readonly authorId: string) {}

  read(conversationId: string): Draft {
    const text = localStorage.getItem(this.nameOf(conversationId));
    return text === null ? NONE : (JSON.parse(text) as Draft);
  }

  write(conversationId: string, draft: Draft): void {
    if (draft.text === '') localStorage.removeItem(this.nameOf(conversationId));
    else localStorage.setItem(this.nameOf(conversationId), JSON.stringify(draft));
  }

  private nameOf(conversationId: string): string {
    return `threadlog.draft.${this.authorId}.${conversationId}`;
  }
}
