/** A Chromium to test the console with; undefined where there is none. */
export declare function findBrowser(): string | undefined;
