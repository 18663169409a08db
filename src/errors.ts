/**
 * Every error that a client can get: its code, status and title. The error filter, the docs and the tests read this table.
 * A code states a fact in snake_case and is part of the public API. The detail of an error is for people.
 */
export const ERRORS = {
  malformed_json: { status: 400, title: 'The body is not valid JSON' },
  malformed_request: { status: 400, title: 'The request is malformed' },
  validation_failed: { status: 400, title: 'Some fields are missing or have the wrong shape' },
  unauthenticated: { status: 401, title: 'No API key, or one that is not valid' },
  forbidden: { status: 403, title: 'This API key may not do this' },
  not_found: { status: 404, title: 'There is no such resource' },
  method_not_allowed: { status: 405, title: 'The resource does not answer this method' },
  conversation_closed: { status: 409, title: 'The conversation is closed for good' },
  transition_not_allowed: { status: 409, title: "The conversation's status does not allow this" },
  no_ended_episode: { status: 409, title: 'No episode of the conversation has ended yet' },
  id_taken: { status: 409, title: 'The id is taken in this organization' },
  user_id_taken: { status: 409, title: 'Another visitor has this userId' },
  email_taken: { status: 409, title: 'Another visitor has this e-mail address' },
  shortcut_taken: { status: 409, title: 'Another canned response has this shortcut' },
  visitor_conflict: { status: 409, title: 'The given keys name different visitors' },
  visitor_erased: { status: 409, title: 'The visitor was erased; nothing can be added to what is left' },
  resource_archived: { status: 409, title: 'The resource is archived' },
  webhook_disabled: { status: 409, title: 'The webhook is disabled' },
  default_inbox_required: { status: 409, title: 'An organization must keep a default inbox' },
  concurrent_changes: { status: 409, title: 'Others keep changing the resource' },
  idempotency_key_in_flight: { status: 409, title: 'A request with this Idempotency-Key is still being handled' },
  revision_mismatch: { status: 412, title: 'The resource has another revision than If-Match names' },
  payload_too_large: { status: 413, title: 'The body is too large' },
  unsupported_media_type: { status: 415, title: 'The body is not application/json in UTF-8' },
  idempotency_key_reused: { status: 422, title: 'The Idempotency-Key was used for another request' },
  snooze_in_past: { status: 422, title: 'A snooze must end in the future' },
  snooze_too_far: { status: 422, title: 'A snooze must end within a year' },
  expiry_in_past: { status: 422, title: 'A key must expire in the future' },
  unknown_assignee: { status: 422, title: 'No agent or team has this id' },
  unknown_team: { status: 422, title: 'No team has this id' },
  unknown_agent: { status: 422, title: 'No agent has this id' },
  unknown_inbox: { status: 422, title: 'No inbox has this id' },
  unknown_company: { status: 422, title: 'No company has this id' },
  unknown_rule: { status: 422, title: 'No automation rule has this id' },
  unknown_canned_response: { status: 422, title: 'No canned response has this id' },
  unknown_variable: { status: 422, title: 'The content names a variable that is not known' },
  unsendable_message: { status: 422, title: 'The rendered message is empty or too long to be sent' },
  unknown_conversation: { status: 422, title: 'No conversation has this id' },
  limit_exceeded: { status: 422, title: 'The resource would exceed one of its limits' },
  upgrade_required: { status: 426, title: 'This address is for WebSockets' },
  rate_limited: { status: 429, title: 'Too many requests' },
  headers_too_large: { status: 431, title: 'The headers or the address are too large' },
  internal_error: { status: 500, title: 'An unexpected fault on our side' },
  store_unavailable: { status: 503, title: 'A store cannot be reached' },
  outcome_unknown: { status: 503, title: 'It is not known whether the change was stored; repeat it with the same Idempotency-Key' },
  too_many_sockets: { status: 503, title: 'This process serves no more sockets' },
  read_model_behind: { status: 503, title: 'The read model has not reached the requested position' },
  stream_parked: { status: 503, title: 'The read model has parked this stream' },
} as const satisfies Record<string, { status: number; title: string }>;

export type ErrorCode = keyof typeof ERRORS;

export interface FieldError {
  /** Path of the field, such as `message.content.title`. */
  readonly field: string;
  readonly message: string;
}

/** The only error whose code and detail reach a client. All other errors are answered as internal_error without a detail. */
export class ThreadlogError extends Error {
  override readonly name = 'ThreadlogError';
  constructor(
    readonly code: ErrorCode,
    readonly detail?: string,
    readonly extra: {
      readonly errors?: readonly FieldError[];
      readonly allowed?: readonly string[];
      readonly retryAfterSeconds?: number;
    } = {},
    options?: ErrorOptions,
  ) {
    super(detail ?? ERRORS[code].title, options);
  }
}
