/** The typed client names this type of browsers, which @types/node does not declare beside fetch. */
type BodyInit = NonNullable<RequestInit['body']>;
